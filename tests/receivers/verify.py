"""Checks a delivery (JSON on standard input) with PyPI's `standardwebhooks`; fails when the signature is not right."""

import base64
import json
import sys

from standardwebhooks import Webhook

delivery = json.load(sys.stdin)
body = base64.b64decode(delivery["body"])
payload = Webhook(delivery["secret"]).verify(body, delivery["headers"])
print(payload["task_id"])
