#!/bin/sh
# Two candidates on the sample task: one from labels by rule, one from a labeller that loves length.
# Both may end in HOLD (exit 4) or BLOCK (exit 1): that is a result, not an error of this script.
# Seeds 11 to 14 are those of docs/tuning.md; nothing of them was seen while the recipe of the pairs was found.
set -u
home=${1:-.judge}
judge tune loop --home "$home" --labels rule --seed 11
echo "exit code $?"
judge tune loop --home "$home" --labels length --epochs 2 --seed 11
echo "exit code $?"
judge tune candidates list --home "$home"
