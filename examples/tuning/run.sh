#!/bin/sh
# Two candidates on the sample task: one from labels by rule, one from a labeller that loves length.
# Both may end in HOLD (exit 4) or BLOCK (exit 1): that is a result, not an error of this script.
set -u
home=${1:-.judge}
judge tune loop --home "$home" --labels rule
echo "exit code $?"
judge tune loop --home "$home" --labels length --epochs 2
echo "exit code $?"
judge tune candidates list --home "$home"
