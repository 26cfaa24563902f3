import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

// `INSIGHTFORGE_TARGET=http://127.0.0.1:8080 npm run dev` works on the page against a running installation.
const target = process.env.INSIGHTFORGE_TARGET ?? 'http://127.0.0.1:8080'

export default defineConfig(({ command }) => ({
  plugins: [vue()],
  // Built, every address is relative to the page's <base>, so that the page works under any path prefix.
  base: command === 'build' ? './' : '/ui/',
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700,
  },
  define: {
    __VUE_OPTIONS_API__: false,
    __VUE_PROD_DEVTOOLS__: false,
    __VUE_I18N_FULL_INSTALL__: false,
    __VUE_I18N_LEGACY_API__: false,
    __INTLIFY_PROD_DEVTOOLS__: false,
    __INTLIFY_DROP_MESSAGE_COMPILER__: false,
  },
  server: { proxy: { '/api': { target, ws: true }, '/v2': target, '/docs': target } },
}))
