# SPDX-License-Identifier: Apache-2.0
"""The one preference schema, as columns of Parquet files (or keys of JSONL objects).

prepare turns every source into it; every later stage reads nothing else.
"""

PREFERENCE_COLUMNS: dict[str, str] = {
    "id": "string",
    "question": "string",
    "answer1": "string",
    "answer2": "string",
    "gold": "int8",
    "images": "list<binary>",
    "source": "string",
}
"""Column name to Arrow type. `gold` is 1 or 2; `images` are encoded PNG, JPEG or WebP files."""

ANNOTATION_COLUMNS: dict[str, str] = {
    "response": "string",
    "attempts": "int8",
    "teacher": "string",
    "temperature": "float",
}
"""Added by annotate. `response` is the whole `<think>…</think><answer>k</answer>`, empty when
the teacher was never right; `attempts` is the attempt that was right, 0 for never."""

SET_COLUMNS: dict[str, str] = {"item": "string", "category": "string"}
"""Added to the rows of an evaluation set. `item` is the benchmark's own id, which need not be
unique (`id` is); `category` its category, or the path of the image or video where the benchmark
takes the category from that."""
