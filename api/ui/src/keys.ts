//! Keys on the keyboard.

import { onMounted, onUnmounted } from 'vue'

export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
}

/** Hears of keys while the component is shown, when nobody types and no dialog is open. */
export function useKeys(keys: Record<string, () => void>): void {
  const hear = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event) || document.querySelector('dialog[open]')) return
    const act = keys[event.key]
    // Enter on a link or a button is that link's or button's.
    if (!act || (event.key === 'Enter' && event.target instanceof HTMLElement && event.target.closest('a, button'))) return
    event.preventDefault()
    act()
  }
  onMounted(() => addEventListener('keydown', hear))
  onUnmounted(() => removeEventListener('keydown', hear))
}
