"""The generators of ``planner.ir.Placement`` in NumPy, element by element, straight from the text.

Tests compare what the planner says with what these make.
"""

import numpy as np


def indices(site, placement, bank):
    """Bank elements that the site reads, one array per window (signs apart)."""
    n, m, start = site.size, bank.size, placement.start
    if placement.generator in {"mix", "interpolate"}:
        length = n if placement.generator == "mix" else placement.rows * placement.columns
        return [
            (start + k * placement.stride + np.arange(length)) % m
            for k in range(placement.templates)
        ]
    if placement.generator in {"repeat", "mask"}:
        return [(start + np.arange(n)) % m]
    if placement.generator == "hash":
        return [hash_indices(site, placement, bank)[0]]
    return [np.arange(m)]


def hash_indices(site, p, bank):
    n, m, length = site.size, bank.size, bank.chunk
    chunks, full = -(-m // length), n // length
    period = max(1, min(full, chunks))
    where, signs = [], []
    for j in range(full + bool(n % length)):
        if j < full:
            chunk = (p.start + (p.stride * (j % period) + p.seed * (j // period)) % period) % chunks
        else:
            chunk = (p.start + full) % chunks
        h = ((j + 1) * 2654435761 + p.seed * 668265263) % 2**32
        bit = ((h ^ (h // 2**15)) * 1540483477 % 2**32) // 2**31
        where.append((chunk * length + np.arange(length)) % m)
        signs.append(np.full(length, 1 - 2 * bit))
    return np.concatenate(where)[:n], np.concatenate(signs)[:n]


def tensor(site, p, bank, values, coefficients):
    """G of the site, flat, for bank values and the bank's coefficients (unscaled)."""
    n = site.size
    c = coefficients[p.coefficient : p.coefficient + p.count]
    if p.generator == "hash":
        where, signs = hash_indices(site, p, bank)
        return values[where] * signs
    if p.generator == "lowrank":
        rows, columns = site.matrix
        left = values[: rows * p.rank].reshape(rows, p.rank)
        return (left @ values[rows * p.rank :].reshape(p.rank, columns)).ravel()
    if p.generator == "tie":
        return values
    windows = [values[where] for where in indices(site, p, bank)]
    if p.generator == "mix":
        return sum(weight * window for weight, window in zip(c, windows, strict=True))
    if p.generator == "interpolate":
        rows, columns = site.matrix
        small = sum(weight * window for weight, window in zip(c, windows, strict=True))
        return (
            resize(rows, p.rows) @ small.reshape(p.rows, p.columns) @ resize(columns, p.columns).T
        ).ravel()
    return c[np.arange(n) // -(-n // p.count)] * windows[0]


def banks(sites, allocation):
    """For each bank its sites' (site, placement, tensor), drawn at random, and what they read."""
    rng = np.random.default_rng(0)
    placed = {placement.site: placement for placement in allocation.placements}
    for bank in allocation.banks:
        members = [site for site in sites if placed[site.name].bank == bank.name]
        read = np.zeros(bank.size, bool)
        values, weights = rng.normal(size=bank.size), rng.normal(size=bank.coefficients)
        made = []
        for site in members:
            placement = placed[site.name]
            for where in indices(site, placement, bank):
                read[where] = True
            made.append((site, placement, tensor(site, placement, bank, values, weights)))
        yield made, read


def resize(large, small):
    """Linear interpolation as a matrix, large × small, corners not aligned."""
    matrix = np.zeros((large, small))
    for i in range(large):
        at = max(0.0, (i + 0.5) * small / large - 0.5)
        low = min(int(at), small - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, min(low + 1, small - 1)] += at - low
    return matrix
