import { expect, test } from 'vitest'
import { legacy, standard } from './signature'

test('the published vectors of Standard Webhooks and of HMAC-SHA256 come out', async () => {
  for (const [secret, prefix, body, signature] of [
    ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.', '{"test": 2432232314}', 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='],
    ['whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD', 'msg_27UH4WbU6Z5A5EzD8u03UvzRbpk.1649367553.', '{"email":"test@example.com","username":"test_user"}', 'v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw='],
  ] as const) {
    expect(await standard(secret, prefix, body)).toBe(signature)
  }
  // RFC 4231 §4.3, test case 2.
  expect(await legacy('Jefe', 'what do ya want for nothing?')).toBe('5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843')
})

test('a secret that is no key gives no signature', async () => {
  for (const bad of ['', 'whsec_', 'whsec_%%%']) expect(await standard(bad, 'a.1.', '{}')).toBeNull()
})
