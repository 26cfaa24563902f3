//! What all charts of the page have in common.

import { colours } from './colours'

export function grid(more: object = {}): object {
  return { left: 4, right: 8, top: 30, bottom: 2, containLabel: true, ...more }
}

export function categories(data: string[], more: object = {}): object {
  const { soft, line } = colours()
  return {
    type: 'category',
    data,
    axisLine: { lineStyle: { color: line } },
    axisTick: { show: false },
    axisLabel: { color: soft, fontSize: 11, hideOverlap: true },
    ...more,
  }
}

export function values(more: object = {}): object {
  const { soft, line } = colours()
  return {
    type: 'value',
    splitNumber: 3,
    minInterval: 1,
    axisLabel: { color: soft, fontSize: 11 },
    splitLine: { lineStyle: { color: line } },
    ...more,
  }
}

export function legend(more: object = {}): object {
  const { ink } = colours()
  return {
    top: 0,
    left: 0,
    itemWidth: 10,
    itemHeight: 10,
    itemGap: 16,
    icon: 'roundRect',
    textStyle: { color: ink, fontSize: 12 },
    ...more,
  }
}
