# SPDX-License-Identifier: Apache-2.0
"""The importer of each format."""

from collections.abc import Mapping

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import Columns, Format
from r1reward_trainer.data.formats import (
    multimodal_rewardbench,
    plain,
    povid,
    r1_reward,
    release_bench,
    rlaif_v,
    vl_rewardbench,
    vlfeedback,
    wildvision,
)
from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.outcome import ConfigurationError

IMPORTERS: Mapping[Format, Importer] = {
    "Plain": plain.OWN,
    "R1Reward": r1_reward.IMPORTER,
    "VLRewardBench": vl_rewardbench.IMPORTER,
    "VLRewardBenchRelease": release_bench.IMPORTER,
    "MMRLHFRewardBench": release_bench.IMPORTER,
    "MultimodalRewardBench": multimodal_rewardbench.IMPORTER,
    "RLAIFV": rlaif_v.IMPORTER,
    "VLFeedback": vlfeedback.IMPORTER,
    "POVID": povid.IMPORTER,
    "WildVision": wildvision.IMPORTER,
}


def importer_of(format: Format, columns: Columns | None = None) -> Importer:
    """The importer of a format, with the columns given.

    Raises:
        ConfigurationError: for columns with another format than Plain.
    """
    if columns is None:
        return IMPORTERS[format]
    if format != "Plain":
        raise ConfigurationError(
            Reason.INVALID_SPEC, f"columns are for format Plain, not for {format}"
        )
    return plain.mapped(columns)
