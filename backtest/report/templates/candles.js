// Show the candles of the visible span, as many of them joined as it takes to stay within `most`, and fit the heights.
const {time, open, high, low, close} = base.data
const count = time.length
const place = (wanted) => {
  let from = 0, to = count
  while (from < to) {
    const middle = (from + to) >> 1
    if (time[middle] < wanted) from = middle + 1; else to = middle
  }
  return from
}
let first = Math.max(0, place(span.start) - 1)
const last = Math.min(count, place(span.end) + 1)
const per = Math.max(1, Math.ceil((last - first) / most))
first -= first % per  // borders that do not depend on the view: candles keep their shape while one moves along
const step = count > 1 ? (time[count - 1] - time[0]) / (count - 1) : 3600000
const found = {time: [], open: [], high: [], low: [], close: [], width: [], colour: []}
let lowest = Infinity, highest = -Infinity
for (let at = first; at < last; at += per) {
  const end = Math.min(at + per, count)
  let top = -Infinity, bottom = Infinity
  for (let each = at; each < end; each++) {
    if (high[each] > top) top = high[each]
    if (low[each] < bottom) bottom = low[each]
  }
  if (top > highest) highest = top
  if (bottom < lowest) lowest = bottom
  found.time.push(time[at] + 0.5 * step * (end - at))
  found.open.push(open[at])
  found.close.push(close[end - 1])
  found.high.push(top)
  found.low.push(bottom)
  found.width.push(0.72 * step * per)
  found.colour.push(close[end - 1] >= open[at] ? gain : loss)
}
shown.data = found
if (highest > lowest) {
  const margin = 0.06 * (highest - lowest)
  heights.setv({start: lowest - margin, end: highest + margin})
}
