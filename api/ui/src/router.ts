//! Which page stands where. Searches live in the address, so that a page can be sent to somebody else.

import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'
import { uiPath } from './api/base'

/** In the order of the menu; `key` is also the key on the keyboard, after `g`. */
export const MENU = [
  { name: 'overview', key: 'o' },
  { name: 'tasks', key: 't' },
  { name: 'insight', key: 'i' },
  { name: 'failures', key: 'f' },
  { name: 'lanes', key: 'l' },
  { name: 'models', key: 'm' },
  { name: 'webhooks', key: 'w' },
  { name: 'journal', key: 'j' },
  { name: 'system', key: 's' },
] as const

const routes: RouteRecordRaw[] = [
  { path: '/', name: 'overview', component: () => import('./pages/Overview.vue') },
  { path: '/tasks', name: 'tasks', component: () => import('./pages/Tasks.vue') },
  { path: '/tasks/:id', name: 'task', component: () => import('./pages/Task.vue'), props: true },
  { path: '/batches/:id', name: 'batch', component: () => import('./pages/Batch.vue'), props: true },
  { path: '/insight', name: 'insight', component: () => import('./pages/Insight.vue') },
  { path: '/failures', name: 'failures', component: () => import('./pages/Failures.vue') },
  { path: '/lanes', name: 'lanes', component: () => import('./pages/Lanes.vue') },
  { path: '/models', name: 'models', component: () => import('./pages/Models.vue') },
  { path: '/models/:type/:version', name: 'model', component: () => import('./pages/Model.vue'), props: true },
  { path: '/webhooks', name: 'webhooks', component: () => import('./pages/Webhooks.vue') },
  { path: '/journal', name: 'journal', component: () => import('./pages/Journal.vue') },
  { path: '/system', name: 'system', component: () => import('./pages/System.vue') },
  { path: '/:rest(.*)', name: 'nowhere', component: () => import('./pages/Nowhere.vue') },
]

export const router = createRouter({
  history: createWebHistory(uiPath),
  routes,
  scrollBehavior: (to, from, saved) => saved ?? (to.path === from.path ? {} : { top: 0 }),
})
