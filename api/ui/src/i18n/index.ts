//! The languages of the page.

import { createI18n } from 'vue-i18n'
import { settings } from '../settings'
import { en } from './en'
import { zhHant } from './zh-Hant'

export const i18n = createI18n({
  legacy: false,
  locale: settings.language,
  fallbackLocale: 'en',
  messages: { en, 'zh-Hant': zhHant },
})
