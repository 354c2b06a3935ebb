"""The wrong changes of `tests/mutants.py`: (file, tests that should see them) -> (old text, new text[, why missed])."""

LAWS = {
    ("laws/dense.py", "test_laws.py -k by_hand"): [
        ("(N_c / N) ** (alpha_N / alpha_D)", "(N_c / N) ** (alpha_D / alpha_N)"),
        ("+ D_c / D) ** alpha_D", "+ D_c / D) ** alpha_N"),
        ("return E + A * N**-alpha + B * D**-beta", "return E + A * N**-alpha - B * D**-beta"),
        ("return E + A * N**-alpha + B * D**-beta", "return E + A * N**-beta + B * D**-alpha"),
        ("B * (M * N) ** -alpha", "B * M ** -alpha"),
    ],
    ("laws/moe.py", "test_laws.py -k by_hand"): [
        ("1.0 / (1.0 / start - 1.0 / maximum)", "1.0 / (1.0 / start + 1.0 / maximum)"),
        (")) + 1.0 / maximum)", ")))"),
        ("np.log10(saturated(experts - 1.0, E_start, E_max))", "np.log10(saturated(experts, E_start, E_max))"),
        ("c * log_N * log_E + d", "c * log_E + d"),
        ("(g * G**-gamma + a) * N**-alpha", "(g * G**gamma + a) * N**-alpha"),
        ("c * active**-lam", "c * active**lam"),
        ("d * active**-delta * N**-gamma", "d * active**-delta"),
        ("N ** (alpha + gamma * x)", "N ** (alpha - gamma * x)"),
        ("D ** (beta + zeta * x)", "D ** beta"),
        ("d * np.log10(compute)", "d * np.log(compute)"),
        ("p = beta / (alpha + beta)", "p = alpha / (alpha + beta)"),
        ("tokens * leverage ** (1.0 - p)", "tokens * leverage ** p"),
        ("k * N_a**-alpha + h", "k * N**-alpha + h"),
        ("h * N_a / N", "h * N / N_a"),
        ("e * G + f / G + m * S**2", "e * G + f / G + m * S"),
        ("b * D**-beta + c * N_a**-alpha + epsilon", "b * D**-beta + epsilon"),
        ("e * active**gamma", "e * active**-gamma"),
        ("(a * active**alpha + c * sparsity)", "(a * active**alpha + c * active)"),
    ],
    ("laws/moe.py", "test_laws.py -k effective"): [
        ("(expansion / E_start) ** (b / dense)", "(expansion / E_start) ** (dense / b)"),
        ("dense = a + c * np.log10(E_start)", "dense = a + c * np.log10(E_max)"),
    ],
    ("laws/pruned.py", "test_laws.py -k by_hand"): [
        ("(a_D / D) ** b_D", "(D / a_D) ** b_D"),
        ("density**b_S + c_S", "density**-b_S + c_S"),
        ("c * (1.0 - density) ** mu", "c * density ** mu"),
    ],
    ("laws/law.py", "test_laws.py test_planning.py -k 'flag or range or outside or own_file'"): [
        ("return outside(self.data_range, quantities)", "return None"),
    ],
    ("laws/repetition.py", "test_repetition.py"): [
        ("repeats(amount, unique)) / delta", "repeats(amount, unique))"),
        ('self.excess == "none" else self.counted', 'self.excess != "none" else self.counted'),
        ("quantities[name] * worth for", "quantities[name] for"),
        ("np.maximum(amount / unique - 1.0, 0.0)", "np.maximum(amount / unique, 0.0)"),
        ("np.maximum(amount / unique - 1.0, 0.0)", "amount / unique - 1.0"),
        ("-finite * np.expm1(-times / finite)", "-finite * np.expm1(-times * finite)"),
        (
            "N * (1.0 + decayed(repeats(params, taught_params), R_N))",
            "N * (1.0 + decayed(repeats(params, taught_params), R_D))",
        ),
        ("repeats(params, taught_params) / n_star", "repeats(params, taught_params) / d_star"),
        ("gamma_N * (1.0 + c11 * q - c21 * q**2)", "gamma_N * (1.0 + c11 * q + c21 * q**2)"),
        ("gamma_D * (1.0 + c12 * q - c22 * q**2)", "gamma_D * (1.0 + c12 * q - c21 * q**2)"),
        ("** delta * (N / U) ** kappa", "** delta * (U / N) ** kappa"),
        ("** delta * (N / U) ** kappa", "** kappa * (N / U) ** delta"),
    ],
    (
        "laws/wrapped.py",
        "test_fit_properties.py test_planning.py -k 'taught or repetition or penalty'",
    ): [
        ("unique * flops.first", "-unique * flops.first"),
        ("return by_size - by_tokens", "return by_size + by_tokens"),
        ("good, -part / slope", "good, part / slope"),
        ("np.maximum(crossing(slope, context, log_size), log_size[0])", "crossing(slope, context, log_size)"),
    ],
}

MODELS = {
    ("models/conventions.py", "test_transformer.py"): [
        ("+ 3 * d + 2 * d * d)", "+ 2 * d * d)"),
        ("+ 3 * d + 2 * d * d)", "+ 3 * d + d * d)"),
        ("-(-model.vocabulary // 128) * 128", "model.vocabulary"),
        ("d * head * (1 + extra)", "d * head"),
        ("wide = _megatron_experts(layer) if layer.moe_layers else", "wide = 0 if layer.moe_layers else"),
        ("core = 2 * group.heads", "core = group.heads"),
        ("group.kv_projections * group.kv_heads +", "group.kv_heads +"),
        ("(acting * narrow + shared)", "(acting * narrow)"),
        ("group.q_rank * (d + wide + 1)", "group.q_rank * (d + wide)"),
        ("q + kv + d * group.rope_dim + out * d", "q + kv + out * d"),
        ("model.active_params - _untrained", "model.active_params + _untrained"),
        ("+ 12 * keys + 18 * states", "+ 12 * keys"),
        ("group.d_model, 2 * group.mamba_groups", "group.mamba_inner, 2 * group.mamba_groups"),
        ("w - w * (w - 1) / (2 * T)", "w + w * (w - 1) / (2 * T)"),
    ],
    ("models/architecture.py", "test_architecture.py test_transformer.py"): [
        ("total = size / (1.0 - sparsity)", "total = size * (1.0 - sparsity)"),
        ("active_experts / (1.0 - sparsity)\n    dense", "active_experts * (1.0 - sparsity)\n    dense"),
        ("(1.0 - 1.0 / moe_every) * dense", "dense / moe_every"),
        ("(shared_experts * expert + experts * d) / moe_every", "shared_experts * expert / moe_every"),
        ("12.0 * layers * d * context * attended", "12.0 * layers * d * context"),
        ("6.0 * (active + vocabulary * d)", "6.0 * (active + embeddings * vocabulary * d)"),
        ("(4.0 + 9.0 * experts)", "(9.0 + 4.0 * experts)"),
        ("2.0 * d * vocabulary", "d * vocabulary"),
        ("(8.0 * expansion + 4.0)", "(8.0 * expansion)"),
        ("flops_per_route * d * expansion * granularity", "flops_per_route * d * expansion"),
        ('(active + shared) / (at["experts"] + shared)', 'active / at["experts"]'),
        ("shared / (active + shared)", "shared / active"),
        ('at["active_params"] / at["total_params"]', 'at["total_params"] / at["active_params"]'),
    ],
    ("models/operations.py", "test_layers.py test_network.py"): [
        ("2 * length - 1 if self.exact_additions", "2 * length + 1 if self.exact_additions"),
        ("(self.count if self.active is None else self.active)", "self.count"),
        ("1 - (1 - self.active / self.count) ** tokens", "(1 - self.active / self.count) ** tokens"),
        (
            "first = n * self.inner * self.repeats * rule.dot(self.columns)",
            "first = n * self.columns * self.repeats * rule.dot(self.inner)",
        ),
        ("second * rule.dot(n)", "second * rule.dot(self.rows)"),
        ("(self.gradients - 1) * batch", "self.gradients * batch"),
        ("(n - 1 if rule.exact_additions else n) * self.columns", "n * self.columns"),
    ],
    ("models/optimizers.py", "test_optimizers.py"): [
        ("(4 * m * m * n + 2 * m**3)", "(2 * m * m * n + 2 * m**3)"),
        ("m, n = sorted((rows, columns))", "n, m = sorted((rows, columns))"),
        ("if not tensor.trained:", "if tensor.trained:"),
        ('Optimizer("adam", 13', 'Optimizer("adam", 12'),
        ("(tensor.rows, tensor.columns) * tensor.count", "(tensor.rows, tensor.columns)"),
    ],
    ("models/ratio.py", "test_network.py"): [
        ("updating.input_gradient * (1 - first)", "updating.input_gradient * (1 + first)"),
        ("weights_per_flop / batch", "weights_per_flop * batch"),
        ("return batch * active_experts / experts", "return batch * experts / active_experts"),
        ("return update / (2 * excess)", "return update / excess"),
        ("(1 - (1 - active_experts / experts) ** batch)", "(1 - active_experts / experts) ** batch"),
    ],
    ("models/attention.py", "test_layers.py test_transformer.py"): [
        ("w - w * w / (2 * sequence)", "w + w * w / (2 * sequence)"),
        ("(whole_chunks * chunk**2 + rest**2)", "(whole_chunks * chunk**2)"),
        ("w - w * (w - 1) / (2 * sequence)", "w - w * (w + 1) / (2 * sequence)"),
        ('Product(1, key_dim, context, kind="scores"', 'Product(1, value_dim, context, kind="scores"'),
        ("self.heads * (self.nope_dim + self.value_dim))", "self.heads * (self.nope_dim + self.rope_dim))"),
        ("(heads + kv_heads) * head_dim", "heads * head_dim"),
    ],
    ("models/feedforward.py", "test_layers.py test_network.py test_transformer.py"): [
        ("rows = self.experts if self.every else self.acting * self.capacity", "rows = self.acting"),
        ("width = self.shared_experts * (self.d_shared or self.d_expert)", "width = self.d_shared or self.d_expert"),
        ("Product(1, self.d_model, self.experts), *bias_of", "*bias_of"),
        ("products, replace(products, gradients=2", "products, replace(products, gradients=1"),
    ],
    ("models/network.py", "test_network.py"): [
        ("(instances - 1) * within) * batch", "instances * within) * batch"),
        ("layer.compute(batch * self.applied,", "layer.compute(batch,"),
        ("Cost(one.forward * self.copies,", "Cost(one.forward,"),
        ("weight_gradient * self.copies)", "weight_gradient)"),
        ("touched_only) * entry.copies * entry.updating.update", "touched_only) * entry.copies"),
        ("seen = max(seen, entry.trained)", "seen = entry.trained"),
        ("passes.total / passes.forward", "passes.forward / passes.total"),
    ],
}

# The quick ones of the tests of planning.
SLOW = "fine_grid or broadcast or root or order_of or nothing_at or no_run or brute"
PLAN = f"test_planning.py -k 'abnar2025 or not ({SLOW})'"

PLANNING = {
    ("planning/size.py", PLAN): [
        ("np.where(feasible, INSIDE, INFEASIBLE)", "np.where(feasible, INSIDE, INSIDE)"),
        ("lower = other.loss < found.loss[there]", "lower = other.loss > found.loss[there]"),
        ("np.abs(distance) > _APART / model", "np.abs(distance) < _APART / model"),
        ("(np.minimum(*rises) < LEVEL)", "(np.minimum(*rises) > LEVEL)"),
        ("away & (found.status == INSIDE)] = TWO", "away & (found.status == TWO)] = TWO"),
        (
            "[index == 0, index == last], [LOWER, UPPER], INSIDE)",
            "[index == 0, index == last], [UPPER, LOWER], INSIDE)",
        ),
        ("lower = loss < found.loss[there] * (1 - _EQUAL)", "lower = loss > found.loss[there] * (1 - _EQUAL)"),
    ],
    ("planning/sparsity.py", PLAN): [
        ("first, last = (-np.log1p(-bound) for bound in bounds)", "first, last = bounds"),
        ("losses <= losses.min(axis=1, keepdims=True) * (1 + _EQUAL)", "losses >= losses.max(axis=1, keepdims=True)"),
        ("[INFEASIBLE, FAILED, LOWER, UPPER], INSIDE)", "[INFEASIBLE, FAILED, UPPER, LOWER], INSIDE)"),
        ("turn = (falls < 0) & (rises > 0)", "turn = (falls > 0) & (rises < 0)"),
    ],
    ("planning/describe.py", PLAN): [
        ('at["tokens"] / at["unique_tokens"]', 'at["unique_tokens"] / at["tokens"]'),
        ("_any(model.law.outside(at), not known and repeats)", "np.asarray(False)"),
    ],
    ("planning/model.py", PLAN): [
        ("once / (1.0 + times)", "once * (1.0 + times)"),
        ("near is None and self.architecture.power > 1", "False"),
        ('cell["compute"] / at["flops_per_token"], cell', 'cell["compute"] / (6 * at["active_params"]), cell'),
        ('cell.get(f"{part}.{name}", value)', "value"),
    ],
    ("planning/sweep.py", PLAN): [
        ("np.nanmin(optima) / _MARGIN", "np.nanmin(optima) * _MARGIN"),
    ],
    ("planning/settling.py", "test_evidence.py -k 'hand or world or 98 or nearest'"): [
        ("outcome.append(sparse - dense)", "outcome.append(dense - sparse)"),
        ("4.0 * SEED**2 +", "SEED**2 +"),
        ("ndtr((line - found) / noise)", "ndtr((found - line) / noise)"),
        ("right.max(axis=0) / 2.0", "right.max(axis=0)"),
        (".min(axis=(0, 1))", ".max(axis=(0, 1))"),
        ("best[:, 0] < best[:, 1]", "best[:, 0] > best[:, 1]"),
        ('cell["taught_params"] * anchor', 'cell["taught_params"]'),
    ],
    ("fitting/evidence.py", "test_evidence.py -k 'how_many or share or li or characters or order'"): [
        ("v * bits for", "v for"),
        ("compute / (6.0 * shares * total)", "compute / (6.0 * total)"),
        ("- seen.min())", "- seen.max())"),
        ("seen[2] - seen[:2].max()", "seen[2] - seen[:2].min()"),
        ("rows.epochs < 1.05", "rows.epochs < 9.05"),
        ('known=cell.get("taught_params")', "known=None"),
        ('"unique_tokens": cell["tokens"]}', '"unique_tokens": 2.0 * cell["tokens"]}'),
    ],
    ("planning/tables.py", "test_evidence.py -k 'spread or parabola or marks or fit_into'"): [
        ("np.ptp(row.optimal_loss.values)", "row.optimal_loss.values.max()"),
        ("show(*values) + _OUTSIDE * (out == 1)", "show(*values)"),
        ("unsaid += names", "unsaid += ()"),
    ],
    ("planning/space.py", f"test_space.py {PLAN}"): [
        ('1.0 - active / context.pop("experts")', 'active / context.pop("experts")'),
        ("own == n and d not in without", "own == n"),
        ('defaults = {"sparsity": 0.0, "unique_tokens": np.inf}', 'defaults = {"sparsity": 0.0, "unique_tokens": 1e9}'),
    ],
    ("numerics/elementwise.py", f"test_elementwise.py {PLAN}"): [
        ("inner = falls[..., :-1] > falls[..., 1:]", "inner = falls[..., :-1] < falls[..., 1:]"),
        ("inner, axis=-1) > own).any()", "inner, axis=-1) > 9).any()"),
        ("x[going], done[going] = secant(", "x[going], done[~going] = secant("),
        ("(values[..., :-1] < 0) & (values[..., 1:] >= 0)", "(values[..., :-1] > 0) & (values[..., 1:] <= 0)"),
        ("np.where(index < 0, -np.inf, np.inf)", "np.where(index < 0, np.inf, -np.inf)"),
    ],
    ("numerics/derivative.py", "test_laws.py test_fit_properties.py -k 'derivative or difference'"): [
        ("lambda out, x, y: -out / y", "lambda out, x, y: out / y"),
        ("lambda out, x: 1.0 / (_LN10 * x)", "lambda out, x: 1.0 / (_LN2 * x)"),
        ("lambda out, x: out + 1.0", "lambda out, x: out"),
        ("lambda out, x, y: 1.0, lambda out, x, y: -1.0", "lambda out, x, y: 1.0, lambda out, x, y: 1.0"),
    ],
}

FITTING = {
    ("fitting/objective.py", "test_fit_by_hand.py"): [
        ("np.where(z < 0.0, above, 1.0)", "np.where(z > 0.0, above, 1.0)"),
        ("value = psi * -0.5", "value = psi * -1.0"),
        ("return 0.5 * z * z, z, one, one", "return z * z, z, one, one"),
        ("np.log(predicted) - observed, 1.0 / predicted", "observed - np.log(predicted), -1.0 / predicted"),
        ("return predicted - observed, 1.0", "return observed - predicted, -1.0"),
        ("np.log(predicted) - observed, 1.0 / predicted", "np.log(predicted) - observed, predicted"),
        ("weight * self.rho(residual)[0]", "self.rho(residual)[0]"),
        ("(size <= delta)", "(size >= delta)"),
    ],
    ("fitting/result.py", "test_fit_by_hand.py"): [
        ("isel(run=~self.outside)", "isel(run=self.outside)"),
        ("(float(runs[n].min()), float(runs[n].max()))", "(float(runs[n].max()), float(runs[n].min()))"),
        ("optimum.x - reach, self.optimum.x + reach", "optimum.x + reach, self.optimum.x - reach"),
    ],
    ("fitting/record.py", "test_fit_by_hand.py"): [
        (
            'np.log(fit.runs["loss"].values) - np.log(predicted["loss"].values)',
            'np.log(predicted["loss"].values) - np.log(fit.runs["loss"].values)',
        ),
    ],
    ("fitting/predict.py", "test_fit_by_hand.py"): [
        ("lines * np.exp(-noise)", "lines * np.exp(noise)"),
        ("else lines - noise", "else lines + noise"),
    ],
    ("fitting/judge.py", "test_fit_by_hand.py"): [
        ("k, deviance = free + 1,", "k, deviance = free,"),
        ("off = predicted - observed", "off = observed - predicted"),
        ("np.abs(off) / observed", "np.abs(off) / predicted"),
        ("1.0 - np.sum(off**2) / total", "np.sum(off**2) / total"),
        ("compute >= np.sort(compute)[-count]", "compute <= np.sort(compute)[count - 1]"),
        ("compute >= np.sort(compute)[-count]", "compute > np.sort(compute)[-count]"),
        ('6.0 * np.asarray(runs[size]) * np.asarray(runs["tokens"])', '6.0 * np.asarray(runs["tokens"])'),
    ],
    (
        "fitting/runs.py",
        "test_fit_by_hand.py test_fit_input.py -k 'not (bad or prior or effect or constant or outlier)'",
    ): [
        ("lambda C, N: C / (6.0 * N)", "lambda C, N: C / N"),
        ("lambda D, e: D / e", "lambda D, e: D * e"),
        ("lambda D, U: D / U", "lambda D, U: U / D"),
        ("lambda E, K: (E - K) / E", "lambda E, K: K / E"),
        ("lambda a, n: a / n", "lambda a, n: n / a"),
        ('"billion": 1e9', '"billion": 1e12'),
        ('"min": lambda v: column >= v', '"min": lambda v: column > v'),
        ('"max": lambda v: column <= v', '"max": lambda v: column < v'),
        ("order = np.lexsort((loss, ", "order = np.lexsort((-loss, "),
        ("values[name].max() < least", "values[name].min() < least"),
        ("tokens * (1 + 1e-9)", "tokens * (1 - 1e-9)"),
    ],
    ("fitting/reading.py", "test_fit_input.py -k 'files or names'"): [
        ('if separator != "," and _decimal', "if _decimal"),
        ('not any("." in cell and is_number(cell) for cell in cells)', "True"),
        ("key=lambda s: -cells[s]", "key=lambda s: cells[s]"),
        ("if name in seen:", "if not name:"),
        ('header[i] or f"column {i + 1}"', "header[i]"),
    ],
    (
        "fitting/task.py",
        "test_fit_properties.py test_fit_input.py -k 'weight or rows or groups or derivatives or prior'",
    ): [
        ("off = (natural[name] - mean) / sd", "off = (natural[name] + mean) / sd"),
        ('weight = np.asarray(runs["weight"], dtype=float)[order]', 'weight = np.asarray(runs["weight"], dtype=float)'),
        ("order = np.lexsort((loss, *inputs.values()))", "order = np.arange(len(loss))"),
    ],
    ("fitting/task.py", "test_fit_starts.py"): [
        ("ended[0] > ends.objective.min()", "ended[0] < ends.objective.min()"),
        ("> _SAME * ended[1:]", "> 0.0"),
        ("(n - found - 2) < found", "(n - found) < found"),
    ],
    ("fitting/starts.py", "test_fit_starts.py"): [
        ("[:, :, 0] + (matrix @ now", "[:, :, 0] - (matrix @ now"),
        ("> _SAME * size", "> size"),
        ("np.maximum(low - _BEYOND", "np.minimum(low - _BEYOND"),
        (".argmin(axis=0)", ".argmax(axis=0)"),
    ],
    ("fitting/uncertainty.py", "test_fit_properties.py test_fit_result.py -k 'cover or groups or bootstraps'"): [
        ("np.sqrt(1.0 - leverage)", "1.0 + leverage"),
        ("np.add.at(summed, task.group, pulls)", "np.add.at(summed, 0 * task.group, pulls)"),
    ],
    (
        "fitting/bootstrap.py",
        "test_fit_properties.py test_fit_result.py test_fit_intervals.py -k 'groups or bootstraps or rows or cover'",
    ): [
        ("picked = rng.integers(0, groups, (draws, groups)) +", "picked = np.arange(groups) +"),
        ("return Rows(fitted - picked, task.weight)", "return Rows(fitted - 2 * picked, task.weight)"),
        ("fitted - signs[:, task.group] * left_out", "fitted - 2 * signs[:, task.group] * left_out"),
        ("rng.choice([-1.0, 1.0], (draws, int(task.group.max()) + 1))", "np.ones((draws, int(task.group.max()) + 1))"),
    ],
    ("fitting/identify.py", "test_fit_input.py test_fit_result.py -k 'constant or effect or figures'"): [
        ("_TRADE_OFF = 0.9", "_TRADE_OFF = 1.1"),
        ("width >= _NOT", "width <= _NOT"),
    ],
    ("fitting/model.py", "test_fit_properties.py -k 'derivatives or taught or repetition'"): [
        ("name: runs[name] / counted for", "name: counted / runs[name] for"),
        (
            'runs[name] / runs["tokens"] / counted',
            "runs[name] / counted",
            "only tian2025 asks for compute, by its logarithm alone, and no published fit of it repeats tokens",
        ),
    ],
}

OUTPUT = {
    ("output/collect.py", "test_collect.py"): [
        ("status[cells], error[cells] = job.status, job.error", "status[cells], error[cells] = job.error, job.status"),
        ("if size <= memory else", "if size > memory else"),
        ("cuts = np.flatnonzero(np.diff(index[0]) != 1) + 1", "cuts = np.flatnonzero(np.diff(index[0]) != 1)"),
        ("values.transpose([dims.index(dim) for dim in full if dim in dims])", "values"),
        ("if len(verbs) > 1:", "if len(verbs) > 2:"),
    ],
    ("output/plan.py", "test_collect.py"): [
        ("len(set(column)) > 1", "len(set(column)) > 0"),
        ("if clear.count(short) == 1 else key", "if True else key"),
        ("len(pairs) == len(set(some)) == len(set(others))", "len(pairs) == len(set(some))"),
        ("if other.path and job.path and was != now:", "if False:"),
        ("apart = np.diff(values) > _SAME", "apart = np.diff(values) > -_SAME"),
        ("return given if all(fits) else None", "return given"),
        ("*(dim for dim in dims if dim not in known), *known", "*known"),
    ],
    ("output/store.py", "test_store.py"): [
        ("os.replace(temporary, path)", "temporary.touch()"),
        ("if not _same(result, again, name)", "if _same(result, again, name)"),
    ],
}

# The tests of balance that do not run whole studies.
BY_HAND = "test_balance_by_hand.py test_domains_by_hand.py test_hardware_by_hand.py"
BALANCE = f"{BY_HAND} test_balance_clock.py test_balance_theory.py"

BALANCING = {
    ("balance/sampling.py", BALANCE): [
        ("state.loss / np.maximum(state.mixture, 1e-12)", "state.loss"),
        ("memory * reward + (1.0 - memory) *", "(1.0 - memory) * reward + memory *"),
        ("rare = normalised(1.0 / (state.seen", "rare = normalised(1.0 * (state.seen"),
        (
            "(1.0 - share) * setting.world.natural + share * rare",
            "share * setting.world.natural + (1.0 - share) * rare",
        ),
        ("setting.world.natural**exponent", "setting.world.natural ** (1 - exponent)"),
        (
            "epochs * setting.world.unique / (setting.tokens * setting.steps)",
            "epochs * setting.world.unique / setting.tokens",
        ),
        ("setting.world.target ** (1.0 / (1.0 + a))", "setting.world.target ** (1.0 + a)"),
        (
            "np.exp(exponent.min(axis=1, keepdims=True) - exponent)",
            "np.exp(exponent - exponent.max(axis=1, keepdims=True))",
        ),
        ("around**-strength", "around**strength"),
        ("least * natural + (1.0 - least) * free", "(1.0 - least) * natural + least * free"),
        ("state.mixture**credit", "state.mixture**-credit"),
        ("gain > solved * gain.max", "gain < solved * gain.max"),
        ("policy.epoch_cap * setting.world.unique - state.seen", "policy.epoch_cap * setting.world.unique"),
        ("if state.step % policy.every:", "if not state.step % policy.every:"),
    ],
    ("balance/structure.py", BALANCE): [
        ("state.mean_load[row, [kept, gone]] + 1e-300", "state.mean_load[row, [gone, kept]] + 1e-300"),
        ("state.hot[row] >= policy.patience", "state.hot[row] > policy.patience"),
        ("burden > policy.threshold, state.hot + 1", "burden < policy.threshold, state.hot + 1"),
        ("demand / np.maximum(copies, 1)", "demand * np.maximum(copies, 1)"),
        ("temperature * np.log1p(-share)", "temperature * np.log1p(share)"),
        ("np.array([1.0 - taken, taken])", "np.array([taken, 1.0 - taken])"),
        ("share[start:stop] = 1.0 - leak", "share[start:stop] = leak"),
        ("cut_quality(view, int(expert)) >= divisibility", "cut_quality(view, int(expert)) <= divisibility"),
        ("view.load(second) < limit", "view.load(second) > limit"),
        ("load[order] < below * load.mean()", "load[order] > below * load.mean()"),
        ("< tail * load.sum()", "> tail * load.sum()"),
        ("np.argsort(-view.load(view.alive)", "np.argsort(view.load(view.alive)"),
        ("state.expert_loss[view.row, :, expert] - floor", "state.expert_loss[view.row, :, expert]"),
        ("distance = 0.5 * np.abs(share - parents)", "distance = np.abs(share - parents)"),
        ("state.copies[row, expert] + 1)", "state.copies[row, expert])"),
    ],
    ("balance/metrics.py", BALANCE): [
        ("np.argsort(natural, axis=1", "np.argsort(-natural, axis=1"),
        ("return max_over_mean(loads) - 1.0", "return max_over_mean(loads)"),
        ("2.0 * np.arange(1, n + 1) - n - 1", "2.0 * np.arange(1, n + 1) - n"),
        ("curve <= target", "curve >= target"),
        ("part * (axis[i] - axis[i - 1])", "(1 - part) * (axis[i] - axis[i - 1])"),
    ],
    ("balance/routing.py", BALANCE): [
        ("scores - weight * rate * slope, bias", "scores + weight * rate * slope, bias"),
        ("bias - step * np.sign(excess(load, alive))", "bias + step * np.sign(excess(load, alive))"),
        ("bias - step * excess(load, alive)", "bias + step * excess(load, alive)"),
        ("loss[:, :, None] - expert_loss", "expert_loss - loss[:, :, None]"),
        ("(1.0 - decay) * scores", "(1.0 + decay) * scores"),
        ("biased / temperature", "biased * temperature"),
        ("np.log(fair / np.maximum(load, 1e-12 * fair))", "np.log(np.maximum(load, 1e-12 * fair) / fair)"),
        ("np.argsort(-affinity, axis=1", "np.argsort(affinity, axis=1"),
        ("chosen * (pressure - (chosen * pressure)", "chosen * (pressure + (chosen * pressure)"),
    ],
    ("balance/placement.py", BALANCE): [
        ("burden[high] - shift, burden[low] + shift", "burden[high] + shift, burden[low] - shift"),
        ("burden[high] <= stop * burden.mean()", "burden[high] >= stop * burden.mean()"),
        ("np.argsort(counts[row] - ideal[row]", "np.argsort(ideal[row] - counts[row]"),
        (
            "np.where((out < 0).any(axis=1), burden, np.inf).argmin()",
            "np.where((out < 0).any(axis=1), burden, -np.inf).argmax()",
        ),
    ],
    ("balance/packing.py", BALANCE): [
        ("order = np.argsort(-weights, axis=-1", "order = np.argsort(weights, axis=-1"),
        ("weights[rows, hottest] / counts[rows, hottest]", "weights[rows, hottest]"),
        ("lightest = key.argmin(axis=-1)", "lightest = key.argmax(axis=-1)"),
    ],
    ("balance/bounds.py", BALANCE): [
        ("(loads / np.maximum(copies, 1)).max(axis=-1)", "loads.max(axis=-1)"),
        ("np.maximum(loads.sum(axis=-1) / devices,", "np.minimum(loads.sum(axis=-1) / devices,"),
        ("best = np.maximum(best, loss - ", "best = np.maximum(best, loss + "),
    ],
    ("balance/simulate.py", "test_balance_run.py -k 'capacity or dropped or memory or books'"): [
        (
            "room = given.routing.capacity_factor * given.tokens * given.active",
            "room = given.routing.capacity_factor * given.tokens",
        ),
        ("dropped = wanted - load.sum(axis=1)", "dropped = load.sum(axis=1) - wanted"),
        (
            "given.run.load_memory * state.mean_load + (1.0 - given.run.load_memory) * load",
            "(1.0 - given.run.load_memory) * state.mean_load + given.run.load_memory * load",
        ),
    ],
    (
        "balance/records.py",
        f"{BALANCE} test_balance_run.py -k 'hand or idle or dropped or books or regret or tail or macro'",
    ): [
        (
            '1.0 - parts["compute"] / (parts["compute"] + parts["wait"])',
            'parts["compute"] / (parts["compute"] + parts["wait"])',
        ),
        ("received.max(axis=1) / hardest - 1.0", "hardest / received.max(axis=1) - 1.0"),
        ("state.dropped / (given.tokens * given.active)", "state.dropped / given.tokens"),
        ('"macro_loss": (world.macro * state.loss)', '"macro_loss": (natural * state.loss)'),
        ('parts["compute"] + parts["dense"] + parts["update"]', 'parts["compute"] + parts["dense"]'),
    ],
    ("balance/study.py", "test_balance_run.py -k 'study or equal'"): [
        ('last.wall_clock.min("policy")', 'last.wall_clock.max("policy")'),
        ("out[name].sel(policy=CLAIM, drop=True) - out[name]", "out[name] - out[name].sel(policy=CLAIM, drop=True)"),
    ],
    ("domains/learning.py", BALANCE): [
        (
            "np.asarray(world.worth(seen + drawn, unique)) - np.asarray(world.worth(seen, unique))",
            "np.asarray(world.worth(seen + drawn, unique))",
        ),
        ("taken *= ~frozen[:, None, :]", "taken *= frozen[:, None, :]"),
        ("np.log1p(-forgetting) * foreign", "np.log1p(-forgetting) * assigned"),
        ("return np.exp(-entropy)", "return np.exp(entropy)"),
        ("gains < threshold * mean", "gains > threshold * mean"),
    ],
    ("domains/curves.py", BALANCE): [
        ("tokens >= threshold", "tokens <= threshold"),
        ("return -slope_of(", "return slope_of("),
        ("np.maximum(tokens, self.first_tokens), **self.values)", "tokens, **self.values)"),
    ],
    ("domains/tree.py", BALANCE): [
        ("rho * decay ** np.maximum(levels - 1.0, 0.0)", "rho * decay ** levels"),
        ("weight = rho * decay ** np.arange(levels)", "weight = rho * decay ** np.arange(1, levels + 1)"),
        ("np.argmin(np.abs(shares - 0.5))", "np.argmax(np.abs(shares - 0.5))"),
        ("1.0 - abs(2.0 * share - 1.0)", "abs(2.0 * share - 1.0)"),
    ],
    ("hardware/chip.py", BALANCE): [
        ("(places - 1) / places / bandwidth", "places / (places - 1) / bandwidth"),
        ("(1.0 - 1.0 / places) ** active", "(1.0 / places) ** active"),
        ("2.0 * (parts - 1) / parts * size", "2.0 * parts / (parts - 1 + 1e-9) * size"),
        ("2.0 * (parts - 1) / parts * size", "(parts - 1) / parts * size"),
        ("** (1.0 / chip.sharpness)", "** chip.sharpness"),
        ("np.minimum(limit, places)", "np.maximum(limit, places)"),
    ],
    ("hardware/placed.py", BALANCE): [
        ("after.held(experts, devices) & ~before", "after.held(experts, devices) | ~before"),
        ("fresh.sum(axis=1)", "fresh.sum(axis=2)"),
        (".sum(axis=1) - self.held", ".sum(axis=1) + self.held"),
    ],
    ("hardware/step.py", BALANCE): [
        ("hops = 2.0 * chip.latency", "hops = 1.0 * chip.latency"),
        ("chip.latency * schedule.microbatches", "chip.latency"),
        ("return 2.0 * (per_pass", "return (per_pass"),
        ("(schedule.dispatch_bytes + schedule.combine_bytes)", "schedule.dispatch_bytes"),
        (".sum(axis=-1).max(axis=-1)\n    copies", ".sum(axis=-1).mean(axis=-1)\n    copies"),
        ("copies = per_device * machine.expert.layers", "copies = per_device"),
        ("machine.expert.layers * arrivals.max(axis=1) * volume", "arrivals.max(axis=1) * volume"),
        ("arrivals.max(axis=1) * volume", "arrivals.sum(axis=1) * volume"),
        ("machine.expert.layers * per_device.max(axis=1)", "per_device.max(axis=1)"),
        ("per_device.max(axis=1) / machine.link", "per_device.mean(axis=1) / machine.link"),
        ("state = 0.0 if machine.schedule.sharded_optimizer", "state = 0.0 if not machine.schedule.sharded_optimizer"),
        ("return per_device / machine.cluster.speed", "return per_device * machine.cluster.speed"),
        ("(2.0 + updated) + machine.chip.launch", "(2.0 + updated)"),
        ("(2.0 + updated) + machine.chip.launch", "(1.0 + updated) + machine.chip.launch"),
        ("np.maximum(exchange - slowest, 0.0)", "np.maximum(exchange + slowest, 0.0)"),
        ("* max(up, out)", "* min(up, out)"),
        ("np.maximum(memory, copies * update_flops", "np.minimum(memory, copies * update_flops"),
        ('"wait": slowest - mean', '"wait": mean - slowest'),
        ("spread = received.max(axis=1)", "spread = received.min(axis=1)"),
        ("1.0 - np.take_along_axis(frozen", "np.take_along_axis(frozen"),
        (
            "self.capacity / (self.layers * self.matrices * self.d_model)",
            "self.capacity / (self.matrices * self.d_model)",
        ),
        ("self.chip.scale_out if self.cluster.nodes > 1", "self.chip.scale_up if self.cluster.nodes > 1"),
        ("machine.cluster.devices * schedule.dense_share", "machine.cluster.devices / schedule.dense_share"),
    ],
}

GROUPS = {**LAWS, **MODELS, **PLANNING, **FITTING, **OUTPUT, **BALANCING}
