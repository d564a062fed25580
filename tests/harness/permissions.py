"""The rules for permissions in the documentation, word for word."""

from __future__ import annotations

import shlex

from tests.harness.documents import DOCS, blocks_of

RULE, DATA_RULE, RETENTION_RULE, PRODUCER_RULE, WRITER_RULE, FLEET_RULE, OPERATOR_RULE = (
    shlex.split(block.text)
    for block in blocks_of(DOCS / "operations" / "permissions.md")
    if block.text.startswith("ACL SETUSER")
)
"""The smallest rule for a consumer; what it needs on top for handlers that read, and for streams that are trimmed
or deleted; the rule for a producer, and what one that writes needs on top; the rule for who looks at the fleet,
and what who acts on it needs on top."""
