# SPDX-License-Identifier: Apache-2.0
"""`python -m r1reward_trainer.torchrun` is torchrun, which hears SIGTERM while it is imported."""

from r1reward_trainer.entry import end_on_sigterm

if __name__ == "__main__":
    end_on_sigterm()
    from torch.distributed.run import main

    main()
