//! What a person has chosen, kept in this browser.

import { reactive, watch } from 'vue'

export type Theme = 'system' | 'light' | 'dark'
export type Language = 'en' | 'zh-Hant'

interface Settings {
  theme: Theme
  language: Language
  /** Times as UTC instead of local. */
  utc: boolean
  /** Searches that were given a name. */
  views: { name: string; query: string }[]
  /** Columns of the list of tasks beside those that it always has. */
  columns: Column[]
}

export const COLUMNS = ['attempt', 'batch', 'started', 'ended', 'took', 'submitted'] as const
export type Column = (typeof COLUMNS)[number]

const KEY = 'insightforge.ui'

export const settings = reactive<Settings>({ ...defaults(), ...stored() })

watch(settings, (now) => {
  try {
    localStorage.setItem(KEY, JSON.stringify(now))
  } catch {
    // A browser that keeps nothing still shows everything.
  }
  apply()
})

const dark = matchMedia('(prefers-color-scheme: dark)')
dark.addEventListener('change', () => apply())

/** Whether what is shown now is dark. */
export const shown = reactive({ dark: false })

export function apply(): void {
  shown.dark = settings.theme === 'dark' || (settings.theme === 'system' && dark.matches)
  document.documentElement.dataset.theme = shown.dark ? 'dark' : 'light'
  document.documentElement.lang = settings.language
}

function defaults(): Settings {
  // The first of the visitor's languages that there is.
  const first = navigator.languages.find((tag) => /^(zh|en)\b/i.test(tag)) ?? 'en'
  return { theme: 'system', language: /^zh/i.test(first) ? 'zh-Hant' : 'en', utc: false, views: [], columns: ['took', 'submitted'] }
}

function stored(): Partial<Settings> {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Settings>
  } catch {
    return {}
  }
}
