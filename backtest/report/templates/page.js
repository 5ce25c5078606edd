// Draw the charts, let tables be turned over and sorted, and put pictures of the charts into a print.
"use strict"
const json = (id) => JSON.parse(document.getElementById(id).textContent)

async function drawCharts() {
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", repaint)
  for (const item of json("charts")) {
    await Bokeh.embed.embed_item(item)
  }
  for (const callback of models("CustomJS")) {
    if (callback.name === "on-opening") await callback.execute(null)
  }
  document.documentElement.dataset.drawn = "yes"
}

function models(kind) {
  return Bokeh.documents.flatMap((each) => each.roots().flatMap((root) => [...root.references()]))
    .filter((model) => model.type === kind)
}

function repaint() {
  for (const drawn of models("Figure")) drawn.change.emit()
}

// A canvas keeps the size that it has on the screen, and the colours: what is printed is a picture of it on white.
function takePictures() {
  document.documentElement.classList.add("printing")
  for (const view of Object.values(Bokeh.index)) {
    const place = view.el.closest(".chart")
    if (!place || place.classList.contains("hidden")) continue
    for (const drawn of [view, ...(view.child_views ?? [])]) drawn.paint?.()
    let picture = place.querySelector("img")
    if (!picture) {
      picture = document.createElement("img")
      picture.alt = place.getAttribute("aria-label") ?? ""
      place.append(picture)
    }
    picture.src = view.export("png", false).canvas.toDataURL()
  }
}

function backToTheScreen() {
  document.documentElement.classList.remove("printing")
  repaint()
}

function showTabs() {
  for (const bar of document.querySelectorAll(".tabs")) {
    const buttons = [...bar.querySelectorAll("button")]
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const each of buttons) {
          const chosen = each === button
          each.setAttribute("aria-selected", String(chosen))
          document.getElementById(each.dataset.shows).classList.toggle("hidden", !chosen)
        }
      })
    }
  }
}

function tradesTable() {
  const place = document.getElementById("trades")
  if (!place) return
  const {columns, rows} = json("trades-data")
  const size = 20
  let page = 0, by = null, down = false
  const order = rows.map((_, at) => rows.length - 1 - at)
  const body = place.querySelector("tbody"), pager = document.getElementById("trades-pager")
  const [back, forth] = pager.querySelectorAll("button")
  const where = pager.querySelector("span")
  const written = (value, kind) => {
    if (value === null) return "–"
    if (kind === "time") return new Date(value).toISOString().slice(0, 16).replace("T", " ")
    if (kind === "text") return value
    const digits = kind === "price" ? {maximumSignificantDigits: 8} : {minimumFractionDigits: 2, maximumFractionDigits: 2}
    const text = Math.abs(kind === "percent" ? 100 * value : value).toLocaleString("en-US", digits)
    const sign = value < 0 ? "\u2212" : kind === "profit" || kind === "percent" ? "+" : ""
    return sign + text + (kind === "percent" ? " %" : "")
  }
  const show = () => {
    const pages = Math.max(1, Math.ceil(rows.length / size))
    body.replaceChildren(...order.slice(page * size, (page + 1) * size).map((at) => {
      const line = document.createElement("tr")
      line.append(...rows[at].map((value, place) => {
        const cell = document.createElement("td"), {kind} = columns[place]
        cell.textContent = written(value, kind)
        if (kind === "text" || kind === "time") cell.className = "text"
        if (kind === "profit" || kind === "percent") cell.className = value < 0 ? "loss" : "gain"
        return cell
      }))
      return line
    }))
    where.textContent = `${(page + 1).toLocaleString("en-US")} of ${pages.toLocaleString("en-US")}`
    back.disabled = page === 0
    forth.disabled = page === pages - 1
  }
  back.addEventListener("click", () => { page -= 1; show() })
  forth.addEventListener("click", () => { page += 1; show() })
  place.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
    down = by === column ? !down : true
    by = column
    const sign = down ? -1 : 1
    order.sort((a, b) => {
      const one = rows[a][column], other = rows[b][column]
      return one === other ? a - b : sign * (one > other ? 1 : -1)
    })
    page = 0
    show()
  }))
  show()
}

showTabs()
tradesTable()
drawCharts()
addEventListener("beforeprint", takePictures)
addEventListener("afterprint", backToTheScreen)
