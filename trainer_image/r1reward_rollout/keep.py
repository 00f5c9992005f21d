# SPDX-License-Identifier: Apache-2.0
"""``python -m r1reward_rollout.keep COMMAND …``: become a command whose last output is kept.

For a server that is stock vLLM: the judge.
"""

import os
import sys

from r1reward_rollout.supervise import supervise
from r1reward_rollout.tail import tail_path
from r1reward_rollout.upload import presigned_uploads


def main() -> None:
    """Become the command, under a parent that stores its last output."""
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: python -m r1reward_rollout.keep COMMAND …")
    supervise(tail_path(os.environ), lambda tail: presigned_uploads(tail, os.environ))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"r1reward_rollout: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
