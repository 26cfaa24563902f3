//! The time as the server has it, a second at a time, for all that says how long ago something was.

import { ref } from 'vue'
import { serverNow } from './clock'

export const now = ref(serverNow())
setInterval(() => {
  if (!document.hidden) now.value = serverNow()
}, 1000)
