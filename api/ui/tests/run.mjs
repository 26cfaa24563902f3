// Drives the dashboard in a real Chromium against the real thing; see stack.mjs for what that is. Pictures of every page
// are kept in the folder that is given. The last line is `N passed, N failed`.
//
// usage: node tests/run.mjs BINARY FOLDER [NGINX COMMAND…]     with INSIGHTFORGE_TEST_REDIS_URL, INSIGHTFORGE_TEST_MARIADB_URL
//        INSIGHTFORGE_TEST_UI=PATTERN                          only checks whose name fits

import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { launch } from './browser.mjs'
import * as many from './many.mjs'
import * as operate from './operate.mjs'
import { look, pages } from './pages.mjs'
import { Stack } from './stack.mjs'
import * as work from './work.mjs'

const [binary, folder, ...nginx] = process.argv.slice(2)
const shots = path.join(folder, 'pictures')
const only = new RegExp(process.env.INSIGHTFORGE_TEST_UI ?? '')
let passed = 0
let failed = 0
const notes = []

async function check(name, run) {
  if (!only.test(name)) return undefined
  const begin = Date.now()
  try {
    const outcome = await run()
    passed++
    console.log(`ok   ${name} (${((Date.now() - begin) / 1000).toFixed(1)} s)`)
    return outcome
  } catch (error) {
    failed++
    console.log(`FAIL ${name}: ${error.message}`)
    return undefined
  }
}
const sentence = (name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)

mkdirSync(shots, { recursive: true })
const stack = await Stack.start({
  binary,
  folder,
  nginx: nginx.length ? nginx : null,
  redis: process.env.INSIGHTFORGE_TEST_REDIS_URL,
  database: process.env.INSIGHTFORGE_TEST_MARIADB_URL,
})
stack.note = (text) => notes.push(text)
stack.shots = shots
const browser = await launch(process.env.INSIGHTFORGE_TEST_CHROMIUM ?? '/usr/bin/chromium-headless-shell')
try {
  await check(sentence(work.theFirstVisitTeaches.name), () => work.theFirstVisitTeaches(browser, stack))
  const completed = await stack.upload('The room was spotless and the staff were wonderful. I loved every minute of it!')
  const entities = await stack.upload('蘋果公司在台灣設有研發中心，張三是其員工。', { task_type: 'named_entity_recognition' })
  const bad = []
  for (let count = 0; count < 3; count++) bad.push(await stack.uploadBad())
  for (const id of [completed, entities, ...bad]) await stack.ended(id)
  const batch = await check(sentence(work.aFileIsLookedAtAndUploadedWithItsProgress.name), () => work.aFileIsLookedAtAndUploadedWithItsProgress(browser, stack))
  const of = { completed, entities, failed: bad[0], batch: batch ?? completed }
  for (const { name } of pages(of)) {
    await check(`the page ${name} in every look`, () => look(browser, `${stack.url}/ui/`, of, name, shots))
  }
  for (const [name, run] of Object.entries({ ...work, ...operate })) {
    if (name !== 'theFirstVisitTeaches' && name !== 'aFileIsLookedAtAndUploadedWithItsProgress') await check(sentence(name), () => run(browser, stack, of))
  }
  if (nginx.length) {
    const below = { ...of }
    for (const name of ['overview', 'tasks', 'task', 'journal', 'models']) {
      await check(`the page ${name} through nginx below a path prefix`, () => look(browser, `${stack.prefixed}/ui/`, below, name, path.join(folder, 'prefixed')))
    }
    await check('live updates pass through nginx', () => work.aNewTaskIsOnTheScreenWithinASecondOfItsAcceptance(browser, Object.assign(Object.create(stack), { url: stack.prefixed })))
  }
  for (const run of [many.aTaskWithTwentyThousandEventsOpensWithinASecond, many.aHundredThousandTasksAreListedWithoutFreezing]) {
    await check(sentence(run.name), () => run(browser, stack))
  }
} finally {
  await browser.close()
  await stack.end()
}
for (const note of notes) console.log(`     ${note}`)
console.log(`pictures: ${shots}`)
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed > 0 ? 1 : 0)
