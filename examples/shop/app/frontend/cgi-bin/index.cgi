#!/bin/sh
# The page of the shop: what a backend says.
printf 'Content-Type: text/plain\r\n\r\n'
echo "frontend $(hostname) asked http://backend-service and was told:"
echo | ask
