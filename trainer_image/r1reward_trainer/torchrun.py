# SPDX-License-Identifier: Apache-2.0
"""`python -m r1reward_trainer.torchrun` is torchrun, and says by its exit code that it was SIGTERM.

Its processes may be told to end before they can leave a message: without the code, a pod that is
deleted because of its peer would look like one whose program failed.
"""

import sys

from r1reward_trainer.entry import end_on_sigterm

if __name__ == "__main__":
    end_on_sigterm()
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.run import main

    try:
        main()
    except SignalException as error:  # its processes have ended
        sys.exit(128 + error.sigval)
