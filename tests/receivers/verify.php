<?php
// Checks a delivery (JSON on standard input) as spatie/laravel-webhook-client does by default: the hex HMAC-SHA256 of
// the raw body, keyed with the secret as it is written, in one header. Fails when the signature is not right.

$delivery = json_decode(stream_get_contents(STDIN), true, flags: JSON_THROW_ON_ERROR);
$body = base64_decode($delivery['body'], true);
$signature = $delivery['headers']['x-webhook-signature'] ?? '';
if (!hash_equals(hash_hmac('sha256', $body, $delivery['secret']), $signature)) {
    fwrite(STDERR, "the signature does not match\n");
    exit(1);
}
echo json_decode($body, true, flags: JSON_THROW_ON_ERROR)['task_id'], "\n";
