# SPDX-License-Identifier: Apache-2.0
"""`python -m r1reward_trainer` is `r1`: torchrun starts it this way."""

from r1reward_trainer.entry import main

if __name__ == "__main__":
    main()
