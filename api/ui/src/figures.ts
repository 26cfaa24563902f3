//! How versions did lately, of several task types at once.

import { ref, watch } from 'vue'
import { get } from './api/client'
import type { Figures, VersionFigures } from './api/types'
import { usePoll } from './live/state'

export type Within = 'hour' | 'day'

export function useFigures(types: () => string[]) {
  const within = ref<Within>('hour')
  const load = async (signal: AbortSignal): Promise<Map<string, VersionFigures>> => {
    const each = await Promise.all(types().map((type) => get<Figures>(`/api/models/${encodeURIComponent(type)}/figures`, { within: within.value }, signal)))
    return new Map(each.flatMap((one) => one.versions.map((version) => [keyOf(one.task_type, version.version), version] as const)))
  }
  const poll = usePoll(load, 15_000, false)
  watch([within, () => types().join(' ')], () => void poll.reload())
  return { within, of: (type: string, version: string) => poll.data.value?.get(keyOf(type, version)), failure: poll.failure }
}

const keyOf = (type: string, version: string) => `${type} ${version}`
