//! Whether a webhook's signature is that of a secret, found out in this browser: the secret goes nowhere. Pure but for the
//! browser's own HMAC.

/** Browsers have it only where the page came over HTTPS, or from this machine. */
export const canCheck = (): boolean => globalThis.crypto?.subtle !== undefined

/** `webhook-signature` over what the prefix and the body say (Standard Webhooks 1.0.0); null: the secret is no key. */
export async function standard(secret: string, prefix: string, body: string): Promise<string | null> {
  const key = keyOf(secret)
  if (!key?.length) return null
  return `v1,${btoa(String.fromCharCode(...(await hmac(key, prefix + body))))}`
}

/** `x-webhook-signature`: over the body alone, keyed with the secret as it is written. */
export async function legacy(secret: string, body: string): Promise<string> {
  return [...(await hmac(new TextEncoder().encode(secret), body))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** What is base64 behind `whsec_`; else the bytes of the text. */
function keyOf(secret: string): Uint8Array<ArrayBuffer> | null {
  if (!secret.startsWith('whsec_')) return new TextEncoder().encode(secret)
  try {
    return Uint8Array.from(atob(secret.slice('whsec_'.length)), (char) => char.charCodeAt(0))
  } catch {
    return null
  }
}

async function hmac(key: Uint8Array<ArrayBuffer>, text: string): Promise<Uint8Array> {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' }
  const imported = await crypto.subtle.importKey('raw', key, algorithm, false, ['sign'])
  return new Uint8Array(await crypto.subtle.sign(algorithm, imported, new TextEncoder().encode(text)))
}
