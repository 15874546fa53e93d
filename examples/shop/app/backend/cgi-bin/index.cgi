#!/bin/sh
# The backend's answer: who it is.
printf 'Content-Type: text/plain\r\n\r\n'
echo "hello from $(hostname) $VERSION"
