#!/bin/sh
# The page of the shop: what the backend says.
echo "Content-Type: text/plain"
echo
echo "frontend $(hostname) asked http://backend-service and was told:"
echo | ask
