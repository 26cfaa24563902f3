//! Where things are. The page may lie under any path prefix; `<base>` says where `/ui/` is, and the API lies beside it.

/** `…/ui/` as a path, for the router. */
export const uiPath = new URL(document.baseURI).pathname

const root = new URL('../', document.baseURI)

/** The full address of an API path such as `/api/tasks`. */
export function addressOf(path: string): string {
  return new URL(path.replace(/^\//, ''), root).toString()
}

/** The same, for a WebSocket. */
export function socketAddressOf(path: string): string {
  return addressOf(path).replace(/^http/, 'ws')
}
