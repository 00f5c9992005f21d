# SPDX-License-Identifier: Apache-2.0
import numpy as np

from tests.bench.digits import ByRow, better_in_all, summarise


def of(sft: float, control: float, rl: float) -> ByRow:
    """A seed of a hundred rows with these accuracies."""
    shares = {"base": 0.0, "sft": sft, "rl": rl, "control": control}
    return {name: (np.arange(100) < 100 * share).astype(float) for name, share in shares.items()}


def test_a_gain_is_one_of_every_seed_and_pairs_rows() -> None:
    result = summarise([of(0.5, 0.6, 0.8), of(0.6, 0.5, 0.7)], [np.arange(100)] * 2)
    assert result["accuracy"]["rl"]["value"] == 0.75
    gain = result["gains"]["rl over sft"]
    assert np.allclose(gain["bySeed"], [0.3, 0.1])
    assert abs(gain["value"] - 0.2) < 1e-9
    assert gain["low"] > 0, "paired: the rows of one are among those of the other"
    assert better_in_all(result, "rl over sft")
    assert not better_in_all(result, "control over sft")
