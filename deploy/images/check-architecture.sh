#!/bin/sh
# check-architecture.sh ARCHITECTURE
#
# Refuses to make an image for another architecture than amd64, by name: CRIU's images of another one mean nothing here, and how an exit
# code is delivered is written for x86-64.
[ "$1" = amd64 ] || {
  echo "check-architecture.sh: this is $1, and images are made for amd64 only" >&2
  exit 1
}
