//! A file on its way.

import { addressOf } from './api/base'
import { Failure, failureOf } from './api/client'
import type { Account } from './api/types'

/** Sends a file as a batch. `fetch` does not say how far an upload is; the older request does. */
export function uploadFile(
  file: File,
  form: { task_type: string; model_version: string; format: string },
  progress: (share: number) => void,
): { done: Promise<Account>; cancel(): void } {
  const request = new XMLHttpRequest()
  const done = new Promise<Account>((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total)
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText) as Account)
      else reject(failureOf(request.status, request.responseText))
    }
    request.onerror = () => reject(new Failure(0, 'no answer'))
    request.onabort = () => reject(new Failure(0, 'cancelled'))
  })
  const body = new FormData()
  body.set('task_type', form.task_type)
  if (form.model_version) body.set('model_version', form.model_version)
  body.set('format', form.format)
  body.set('file', file)
  request.open('POST', addressOf('/api/data/upload/batch'))
  request.setRequestHeader('Accept', 'application/json')
  request.setRequestHeader('Idempotency-Key', crypto.getRandomValues(new Uint32Array(4)).join('-'))
  request.send(body)
  return { done, cancel: () => request.abort() }
}
