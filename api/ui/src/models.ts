//! The models that can be asked for, as forms need them.

import { computed, ref, watch } from 'vue'
import { get } from './api/client'
import type { Card, Models } from './api/types'
import { useOnce } from './live/state'

export function useModelChoice() {
  const models = useOnce((signal) => get<Models>('/api/models', {}, signal))
  const taskType = ref('')
  /** Empty: the stable one. */
  const version = ref('')
  const card = ref<Card | null>(null)
  const types = computed(() => (models.data.value?.task_types ?? []).filter((one) => one.versions.length))
  const routes = computed(() => types.value.find((one) => one.task_type === taskType.value))
  const versions = computed(() => (routes.value?.versions ?? []).filter((one) => !routes.value?.retired.includes(one)))
  const answers = computed(() => version.value || routes.value?.stable || versions.value[0] || '')

  watch(types, (now) => {
    if (!taskType.value) taskType.value = now.find((one) => one.task_type === 'sentiment_analysis')?.task_type ?? now[0]?.task_type ?? ''
  })
  watch(taskType, () => (version.value = ''))
  watch(
    [taskType, answers],
    async ([type, answer]) => {
      if (!type || !answer) return
      const found = await get<Card>(`/api/models/${encodeURIComponent(type)}/${encodeURIComponent(answer)}`).catch(() => null)
      if (type === taskType.value && answer === answers.value) card.value = found
    },
    { immediate: true },
  )
  return { models, types, taskType, version, versions, routes, card }
}
