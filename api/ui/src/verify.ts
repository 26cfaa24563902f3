//! How a receiver checks that a webhook is ours, in the languages receivers are written in. All of them check Standard
//! Webhooks' headers with its own libraries; the last one is the compatibility header.

export const SNIPPETS: { name: string; code: string }[] = [
  {
    name: 'PHP',
    code: `// composer require standard-webhooks/standard-webhooks
$webhook = new \\StandardWebhooks\\Webhook($secret);               // whsec_…
$event = $webhook->verify($request->getContent(), [
    'webhook-id' => $request->header('webhook-id'),
    'webhook-timestamp' => $request->header('webhook-timestamp'),
    'webhook-signature' => $request->header('webhook-signature'),
]);                                                              // throws unless it is ours`,
  },
  {
    name: 'Python',
    code: `# pip install standardwebhooks
from standardwebhooks.webhooks import Webhook

event = Webhook(secret).verify(body, headers)   # body: the bytes as they came; raises unless it is ours`,
  },
  {
    name: 'Node',
    code: `// npm install standardwebhooks
import { Webhook } from 'standardwebhooks'

const event = new Webhook(secret).verify(rawBody, headers)   // throws unless it is ours`,
  },
  {
    name: 'Go',
    code: `// go get github.com/standard-webhooks/standard-webhooks/libraries
wh, err := standardwebhooks.NewWebhook(secret)
if err != nil { return err }
err = wh.Verify(body, request.Header)   // nil when it is ours`,
  },
  {
    name: 'Rust',
    code: `// cargo add standardwebhooks
let webhook = standardwebhooks::Webhook::new(&secret)?;
webhook.verify(&body, &headers)?;   // an error unless it is ours`,
  },
  {
    name: 'X-Webhook-Signature',
    code: `// For receivers that know only this header. It covers no time: whoever sees one can repeat it.
hash_equals(hash_hmac('sha256', $request->getContent(), $secret), $request->header('X-Webhook-Signature'))`,
  },
]
