"""``python -m tune VERB``: the same as ``judge tune VERB``; ``accelerate launch -m tune train`` starts it on several
devices.
"""

from __future__ import annotations

import sys

from judge.cli import main

if __name__ == "__main__":
    sys.argv = ["judge", "tune", *sys.argv[1:]]
    main()
