//! The dashboard: [App] is the frame, `router` says which page stands where, `api/` asks, `live/` hears.

import { createApp } from 'vue'
import App from './App.vue'
import { i18n } from './i18n'
import { router } from './router'
import { apply } from './settings'
import './theme.css'

apply()
createApp(App).use(router).use(i18n).mount('#app')
