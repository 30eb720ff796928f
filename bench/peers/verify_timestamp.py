"""Run by the clean environment's Python: verify_timestamp.py FILE RESPONSE CERTIFICATE.

Exit 0 when the time-stamp holds.
"""

from __future__ import annotations

import sys

from cryptography.x509 import load_pem_x509_certificate
from rfc3161_client import VerifierBuilder, decode_timestamp_response  # type: ignore[import-not-found]


def main(file: str, response: str, root: str) -> None:
    with open(file, "rb") as f, open(response, "rb") as r, open(root, "rb") as c:
        data, answer, certificate = f.read(), r.read(), c.read()
    verifier = VerifierBuilder().add_root_certificate(load_pem_x509_certificate(certificate)).build()
    verifier.verify_message(decode_timestamp_response(answer), data)


if __name__ == "__main__":
    main(*sys.argv[1:])
