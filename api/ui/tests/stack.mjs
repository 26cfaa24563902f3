// The real thing, for these tests alone: every role on servers that are there, keys under a prefix and a database of its
// own, a receiver of webhooks, and nginx with the repository's configuration below a path prefix.

import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createSocket } from 'node:net'
import path from 'node:path'

const REPOSITORY = path.resolve(import.meta.dirname, '../../..')
const READY_MS = 60_000

export class Stack {
  processes = []
  /** What the receiver of webhooks got. */
  received = []

  static async start({ binary, redis, database, folder, nginx }) {
    const stack = new Stack()
    stack.folder = folder
    mkdirSync(folder, { recursive: true })
    stack.name = `ui${randomBytes(6).toString('hex')}`
    stack.server = new URL(database)
    stack.binary = binary
    stack.sql(`CREATE DATABASE ${stack.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`)
    stack.receiver = await listen((request, response) => {
      let body = ''
      request.on('data', (part) => (body += part))
      request.on('end', () => {
        stack.received.push({ headers: request.headers, body })
        response.setHeader('Content-Type', 'text/plain')
        response.end('Noted, thank you.')
      })
    })
    stack.settings = {
      PATH: process.env.PATH,
      REDIS_URL: redis,
      DATABASE_URL: Object.assign(new URL(database), { pathname: `/${stack.name}` }).toString(),
      INSIGHTFORGE_KEY_PREFIX: stack.name,
      INSIGHTFORGE_ENCRYPTION_KEY: randomBytes(32).toString('hex'),
      INSIGHTFORGE_WEBHOOK_URL: `http://127.0.0.1:${stack.receiver.address().port}/`,
      INSIGHTFORGE_WEBHOOK_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
      INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8',
      // Rows are copied below to have very many: a comparison with the journal would find them.
      INSIGHTFORGE_CHECK_EVERY_S: '0',
    }
    stack.run('migrate')
    stack.port = await freePort()
    stack.url = `http://127.0.0.1:${stack.port}`
    await Promise.all([
      stack.startApi(),
      stack.role('analyzer', ['--infer-addr', '127.0.0.1:0']),
      stack.role('projector', []),
    ])
    if (nginx) await stack.startNginx(nginx)
    return stack
  }

  run(...args) {
    const done = spawnSync(this.binary, args, { env: this.settings, encoding: 'utf8' })
    if (done.status !== 0) throw new Error(`${args.join(' ')}: ${done.stderr}`)
    return done.stdout
  }

  /** A command beside the page. */
  async beside(...args) {
    const child = this.spawn(args[0], this.binary, args, this.settings, 'pipe')
    let said = ''
    child.stdout.on('data', (part) => (said += part))
    const code = await new Promise((resolve) => child.once('exit', resolve))
    if (code !== 0) throw new Error(`${args.join(' ')}: ${code} ${said}`)
    return said
  }

  sql(statement, database = '') {
    const { hostname, port, username, password } = this.server
    const args = ['--no-defaults', `--host=${hostname}`, `--port=${port || 3306}`, `--user=${decodeURIComponent(username)}`, '--batch', '--skip-column-names']
    if (password) args.push(`--password=${decodeURIComponent(password)}`)
    const done = spawnSync('mariadb', [...args, ...(database ? [database] : [])], { input: statement, encoding: 'utf8', env: { PATH: process.env.PATH } })
    if (done.status !== 0) throw new Error(`${statement.slice(0, 80)}: ${done.stderr}`)
    return done.stdout.trim()
  }

  /** Statements on the tables of this installation. */
  tables(statement) {
    return this.sql(statement, this.name)
  }

  startApi() {
    return this.role('api', ['--http-addr', `127.0.0.1:${this.port}`])
  }

  async stop(name) {
    const child = this.processes.find((one) => one.role === name && one.exitCode === null)
    child.kill('SIGTERM')
    await new Promise((resolve) => child.once('exit', resolve))
  }

  async role(name, args) {
    const metrics = await freePort()
    const child = this.spawn(name, this.binary, [name, '--metrics-addr', `127.0.0.1:${metrics}`, ...args], this.settings)
    await until(`${name} is ready`, child, async () => (await fetch(`http://127.0.0.1:${metrics}/readyz`)).ok)
  }

  /** Two of them, as it would be: the outer one cuts the prefix off, the inner one has the repository's configuration. */
  async startNginx(program) {
    const [outer, inner] = [await freePort(), await freePort()]
    const folder = path.join(this.folder, 'nginx')
    mkdirSync(folder, { recursive: true })
    let text = readFileSync(path.join(REPOSITORY, 'nginx/nginx.conf'), 'utf8')
    for (const [from, to] of [
      ['listen 8080;', `listen 127.0.0.1:${inner};`],
      ['listen 127.0.0.1:8081;', `listen 127.0.0.1:${await freePort()};`],
      ['server api:8080 resolve ', `server 127.0.0.1:${this.port} `],
      ['/tmp/', `${folder}/`],
      ['/dev/stdout', `${folder}/access.log`],
    ]) {
      if (!text.includes(from)) throw new Error(`nginx.conf has no ${from}`)
      text = text.replaceAll(from, to)
    }
    writeFileSync(path.join(folder, 'inner.conf'), text)
    writeFileSync(
      path.join(folder, 'outer.conf'),
      `pid ${folder}/outer.pid; error_log stderr warn; events {}
http {
  access_log off;
  client_body_temp_path ${folder}/outer-body; proxy_temp_path ${folder}/outer-proxy; fastcgi_temp_path ${folder}/outer-f;
  uwsgi_temp_path ${folder}/outer-u; scgi_temp_path ${folder}/outer-s;
  server {
    listen 127.0.0.1:${outer};
    location /insight/ {
      proxy_pass http://127.0.0.1:${inner}/;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $http_connection;
    }
  }
}
`,
    )
    for (const [name, port] of [['inner', inner], ['outer', outer]]) {
      const [command, ...args] = program
      const child = this.spawn(`nginx-${name}`, command, [...args, '-p', folder, '-c', path.join(folder, `${name}.conf`), '-g', 'daemon off;'], { PATH: process.env.PATH })
      await until(`nginx ${name} is ready`, child, async () => (await fetch(`http://127.0.0.1:${port}/`)).status > 0)
    }
    this.prefixed = `http://127.0.0.1:${outer}/insight`
  }

  spawn(name, command, args, env, output) {
    const log = openSync(path.join(this.folder, `${name}.log`), 'a')
    const child = spawn(command, args, { env, stdio: ['ignore', output ?? log, log] })
    child.role = name
    this.processes.push(child)
    return child
  }

  async post(url, body) {
    const response = await fetch(this.url + url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
    if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`)
    return response.json()
  }

  async get(url) {
    return (await fetch(this.url + url)).json()
  }

  async upload(text, more = {}) {
    const { task_id: id } = await this.post('/api/data/upload', { task_type: 'sentiment_analysis', data: JSON.stringify({ text }), ...more })
    return id
  }

  /** A task that fails for good: the former door takes what the model then refuses. */
  async uploadBad() {
    const id = crypto.randomUUID()
    await this.post('/analyze', { task_id: id, task_type: 'sentiment_analysis', data: '{"text":" "}', webhook_url: this.settings.INSIGHTFORGE_WEBHOOK_URL })
    return id
  }

  async ended(id) {
    return eventually(`task ${id} has ended`, async () => {
      const page = await this.get(`/api/tasks?q=${encodeURIComponent(`id:${id}`)}`)
      const task = page.tasks?.[0]
      return task && ['completed', 'failed', 'cancelled'].includes(task.status) ? task : null
    })
  }

  async end() {
    for (const child of this.processes.reverse()) child.kill('SIGTERM')
    await Promise.all(this.processes.map((child) => child.exitCode !== null || child.signalCode !== null || new Promise((resolve) => child.once('exit', resolve))))
    this.receiver.close()
    this.receiver.closeAllConnections()
    this.sql(`DROP DATABASE ${this.name}`)
    spawnSync('sh', ['-c', `redis-cli -u "$REDIS_URL" --scan --pattern '*${this.name}*' | xargs -r -n 500 redis-cli -u "$REDIS_URL" del >/dev/null`], { env: { PATH: process.env.PATH, REDIS_URL: this.settings.REDIS_URL } })
  }
}

export async function eventually(what, ask, ms = 30_000) {
  const deadline = Date.now() + ms
  for (;;) {
    const found = await ask()
    if (found) return found
    if (Date.now() > deadline) throw new Error(`it did not come to pass: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function until(what, child, ask) {
  await eventually(
    what,
    async () => {
      if (child.exitCode !== null) throw new Error(`${what}: it has ended (${child.exitCode})`)
      return ask().catch(() => false)
    },
    READY_MS,
  )
}

function listen(answer) {
  return new Promise((resolve) => {
    const server = createServer(answer)
    server.listen(0, '127.0.0.1', () => resolve(server))
  })
}

function freePort() {
  return new Promise((resolve) => {
    const socket = createSocket()
    socket.listen(0, '127.0.0.1', () => {
      const { port } = socket.address()
      socket.close(() => resolve(port))
    })
  })
}
