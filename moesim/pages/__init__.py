"""Results to play with: one HTML file from result files, which asks nothing of any network and runs nothing of theirs.

    page.py     files or Datasets -> one HTML file: the shell, what it may run, and the data
    views.py    which sections a result of a verb has
    live.py     the law of a sweep, a fit or a plan under sliders; script.py: its formula as JavaScript
    fit.py plan.py balance.py sites.py flops.py lab.py    the views of these verbs
    values.py   numbers and texts as the JSON of a page, and thinned where they are too many
    js/         what runs in the page: core.js (elements, numbers), plot.js (plots), solve.js (taught size, optimum and
                best sparsity, written once here, equal to Python's), and a file for each further kind of section

**A section** is a `Section(kind, title, content)`: `js/KIND.js` draws it, from `content`, which is plain data (numbers,
texts, lists, mappings, NumPy arrays). Kinds there are: `text` (`paragraphs`, `lines`), `table` (`rows`), `plot` (the
`spec` of plot.js, `panels` of several, or `frames` of these to go through with a `slider` or to `choose` from),
`explore` (any variable of a Dataset along any dims), `live`.

**A view of a verb** is a module with a function `view(dataset) -> list[Section]` in the table `VIEWS` of views.py;
what every result has (what made it, its variables) comes after it by itself. A new kind of section is one file
`js/KIND.js` that ends with `moesim.kinds.KIND = (content, root) => {...}` and puts elements made by `moesim.make` into
`root`. Texts go in as text (`moesim.make("p", {}, text)`), never as HTML; the tests look for `innerHTML` and fail.

Every plot is drawn by plot.js as SVG: some 20 KB in place of the 4.8 MB of plotly.min.js, a redraw of 20 curves in
milliseconds, texts that can only be text, and colours that follow the page from light to dark.
"""
