# SPDX-License-Identifier: Apache-2.0
"""How a record of the log becomes its line."""

import logging


class OneLine(logging.Formatter):
    """Spells out what would end a line or steer a terminal: names and answers out of data and of
    other services stand in messages. A traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        return printable(super().formatMessage(record))


def printable(text: str) -> str:
    """The text with an escape for each character that cannot be seen, such as `\\n`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
