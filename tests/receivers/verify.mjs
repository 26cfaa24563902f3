// Checks a delivery (JSON on standard input) with npm's `standardwebhooks`; fails when the signature is not right.

import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const delivery = JSON.parse(readFileSync(0, "utf8"));
const body = Buffer.from(delivery.body, "base64").toString("utf8");
const payload = new Webhook(delivery.secret).verify(body, delivery.headers);
console.log(payload.task_id);
