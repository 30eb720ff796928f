"""The formats and rules of nextcloud-audit, as pure functions over bytes, and the client that asks them.

Start with `verifier.verify`: the main path in numbered steps. SPEC.md is the normative text.
"""

SPEC_VERSION = "1"
