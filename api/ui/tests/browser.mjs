// A real Chromium, and pages of it that keep what went wrong in them.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

export function launch(executablePath) {
  return chromium.launch({ executablePath, args: ARGUMENTS })
}

/** A fresh visitor. */
export async function visitor(browser, { theme = 'light', language = 'en', width = 1280, height = 860 } = {}) {
  // Helpers that look into the page are put in by evaluation, which its policy forbids to the page itself.
  const context = await browser.newContext({ viewport: { width, height }, locale: 'en-GB', timezoneId: 'UTC', acceptDownloads: true })
  await context.addInitScript(
    ([key, value]) => localStorage.getItem(key) ?? localStorage.setItem(key, value),
    ['insightforge.ui', JSON.stringify({ theme, language, utc: true, views: [] })],
  )
  const page = await context.newPage()
  page.wrong = []
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && page.wrong.push(`console: ${message.text()} (${message.location().url})`))
  page.on('pageerror', (error) => page.wrong.push(`error: ${error.message}`))
  page.on('requestfailed', (request) => {
    // A page that is left gives up what it had asked for.
    if (request.failure()?.errorText !== 'net::ERR_ABORTED') page.wrong.push(`request: ${request.url()} ${request.failure()?.errorText}`)
  })
  page.on('request', (request) => {
    // It works offline: nothing comes from anywhere else.
    if (!/^(http|ws):\/\/127\.0\.0\.1:/.test(request.url()) && !request.url().startsWith('data:')) page.wrong.push(`request to elsewhere: ${request.url()}`)
  })
  page.setDefaultTimeout(30_000)
  return page
}

/** A visitor's work on a page, of which nothing may be wrong at its end. */
export async function on(browser, url, work, look) {
  const page = await visitor(browser, look)
  try {
    await page.goto(url)
    await work(page)
    noneWrong(page)
  } catch (error) {
    throw new Error(`${error.message}\n${page.wrong.join('\n')}`)
  } finally {
    await page.context().close()
  }
}

/** Serious and critical findings of axe, as sentences. */
export async function accessibility(page) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'], resultTypes: ['violations'] }))
  return violations
    .filter((one) => one.impact === 'serious' || one.impact === 'critical')
    .flatMap((one) => one.nodes.slice(0, 4).map((node) => `${one.id}: ${node.target.join(' ')} — ${node.failureSummary?.split('\n').slice(1, 2).join(' ').trim()}`))
}

export function noneWrong(page) {
  if (page.wrong.length) throw new Error(page.wrong.join('\n'))
}
