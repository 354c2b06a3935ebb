"""Wrong changes of what people fit for, as in `mutant_table.py`."""

USES = {
    ("laws/single.py", "test_laws.py -k by_hand"): [
        ("return L_inf + A * total_params**-alpha", "return L_inf + A * total_params**alpha"),
        ("return L_inf + A * tokens**-alpha", "return L_inf - A * tokens**-alpha"),
        ("return L_inf + A * compute**-alpha", "return A * compute**-alpha"),
        ("np.exp(k * (loss - L_0))", "np.exp(k * (L_0 - loss))"),
        ("low + (high - low) /", "low + high /"),
    ],
    ("fitting/allocation.py", "test_fit_uses.py -k 'allocation or budgets'"): [
        ("(along * np.log(quantity)).sum(", "(along * quantity).sum("),
        ("ends = [0.5 - level / 2, 0.5 + level / 2]", "ends = [1.0 - level, level]"),
        ('float(inputs["unique_tokens"].max())', 'float(inputs["unique_tokens"].min())'),
        ("float(np.median(inputs[name]))", "float(np.max(inputs[name]))"),
        ("np.log10([np.median(own), 100.0 * own.max()])", "np.log10([np.median(own), 10.0 * own.max()])"),
        ('plan[f"{p}_tokens"] / plan[f"{p}_active_params"]', 'plan[f"{p}_active_params"] / plan[f"{p}_tokens"]'),
        ("share.values > 0.5", "share.values < 0.5"),
    ],
    ("fitting/judge.py", "test_fit_uses.py -k active"): [
        ("* (1.0 - inactive)", "* inactive"),
    ],
    ("fitting/design.py", "test_fit_uses.py -k 'next or tell or cost'"): [
        ("return 3600.0 * share *", "return 3600.0 / share *"),
        ("np.log(lines) if fit.task.objective.log else lines", "np.log(lines)"),
        ("np.log(values) if quantity", "values if quantity"),
        ("return together**2 /", "return together /"),
    ],
    ("fitting/downstream.py", "test_fit_uses.py -k accuracy"): [
        ("loss = losses(via.task, at, x)", "loss = losses(via.task, at, x[:1])"),
        ("_behind(fit, loss, y)", "_behind(fit, loss, y[:1])"),
    ],
    ("fitting/isoflop.py", "test_fit_uses.py -k 'minim or budgets'"): [
        ("if np.ptp(compute) > widest:", "if np.ptp(compute) < widest:"),
        ("np.abs(log_compute - log) <= gap", "np.abs(log_compute - log) >= gap"),
        ("if not size.min() < best < size.max():", "if not size.min() < best:"),
    ],
    ("fitting/versus.py", "test_fit_compared.py -k 'recipe or draws or reach'"): [
        ('data["loss"].sel(fit="one") < data', 'data["loss"].sel(fit="one") > data'),
        ("np.exp(_reached(other, loss[0], at) - at)", "np.exp(_reached(one, loss[1], at) - at)"),
        ("np.exp(_reached(other, loss[0], at) - at)", "np.exp(at - _reached(other, loss[0], at))"),
        ("np.where(x > start, np.inf, -np.inf)", "np.where(x < start, np.inf, -np.inf)"),
        ("loss[0] - loss[1])", "loss[1] - loss[0])"),
    ],
    ("fitting/repeated.py", "test_fit_compared.py -k 'cut or validation or folds'"): [
        ("again(fit, compute > cut) for cut", "again(fit, compute <= cut) for cut"),
        ("np.argmin(squares.mean(axis=1))", "np.argmax(squares.mean(axis=1))"),
        ("/ np.sqrt(groups) / best.mean()", "/ best.mean()"),
        ("part = again(fit, out, ", "part = again(fit, ~out, "),
    ],
    ("fitting/checkpoints.py", "test_fit_compared.py -k 'worth or checkpoints or autocorrelation'"): [
        ("(1.0 - k / n) * r**k", "r**k"),
        ("same = group[1:] == group[:-1]", "same = group[1:] == group[1:]"),
        ("np.lexsort((tokens, group))", "np.lexsort((group, tokens))"),
        ("own * (worth / size)[group]", "own * worth[group]"),
    ],
    ("fitting/posterior.py", "test_fit_uses.py -k 'posterior or prior'"): [
        ("- 0.5 * np.sum(_off(fit, at) ** 2, axis=1)", "- 0.0 * np.sum(_off(fit, at) ** 2, axis=1)"),
        ("(2.0 * at - low - high) /", "(at - low - high) /"),
        ("- least) / scale", "- least) * scale"),
        ("[name] - mean) / sd", "[name] - mean) * sd"),
    ],
    ("fitting/reading.py", "test_fit_input.py -k 'files or grid or parquet'"): [
        (
            'source.stack(run=list(source.dims)).reset_index("run")',
            "source.isel({d: 0 for d in list(source.dims)[1:]})",
        ),
        ('"" if row.get(name) is None else', '"0" if row.get(name) is None else'),
    ],
    ("fitting/runs.py", "test_fit_input.py -k 'blanks or before'"): [
        ('if v not in {*spec.columns, "loss"}}', 'if v not in {"loss"}}'),
        (
            "variable.get(name, name) if name is not None and name not in there",
            "name if name is not None and name not in there",
        ),
    ],
    ("planning/tables.py", "test_fit_uses.py -k points_to"): [
        ("quantile([0.05, 0.95]", "quantile([0.25, 0.75]"),
    ],
}
