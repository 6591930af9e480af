"""The search of `prefix_search.py` as machine code, with word n-grams and hot words built in.

Prefixes are nodes of a tree that is kept from step to step, so that the language model is asked once for
each. When the tree is full, the nodes that no prefix in the beam begins with are dropped: memory grows with
the text only, not with what was pruned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asr.decoding.compilation import compiled
from asr.decoding.ngram import narrowed, ngram_log_prob, word_length

BOUNDARY = 32  # the byte of a space
INITIAL_NODES = 1 << 14

NODE = np.dtype(
    [
        ("parent", np.int32),
        ("unit", np.int32),
        ("child", np.int32),  # the newest one, -1 for none
        ("sibling", np.int32),  # the parent's next child, -1 for none
        ("entry", np.int32),  # place in the beam, -1 for none
        ("word", np.int32),  # id of the word that ends here, -1 for none; <s> at the root
        ("word_node", np.int32),  # the nearest node above where a word ends
        ("first", np.int32),  # the unfinished word may become the words first to last - 1
        ("last", np.int32),
        ("letters", np.int32),  # bytes of the unfinished word
        ("hot", np.int32),  # state of the hot words' automaton
        ("settled", np.float64),  # worth of the finished words
        ("rewards", np.float64),  # of finished hot words
        ("language", np.float64),  # worth of all the text so far
    ],
    align=True,
)


class Language(NamedTuple):
    """What the search knows beside the sound; see `WordScorer` and `HotwordAutomaton`."""

    tables: tuple  # NgramTables
    mass: np.ndarray
    has_words: bool  # whether `tables` are asked
    alpha: float
    beta: float
    unknown_penalty: float
    hot_next: np.ndarray
    hot_credit: np.ndarray
    hot_reward: np.ndarray


@compiled
def search(log_probs, unit_bytes, unit_begin, language, beam, score_margin, least_unit_log_prob):
    """Scores [n] (best first), units of all results one after the other, and where each begins [n + 1].

    Args:
      log_probs: float32 [steps, units].
      unit_bytes, unit_begin: the units' UTF-8 text, one after the other, and where each begins [units + 1].
      language: `Language`.
      beam, score_margin, least_unit_log_prob: `Pruning`.
    """
    steps, size = log_probs.shape
    most = beam * size  # candidates of a step: each prefix as it is or with one unit more
    nodes = np.empty(max(INITIAL_NODES, 2 * most), NODE)
    history = np.empty(max(1, language.tables.order - 1), np.int64)
    _set_root(nodes, language)
    count = 1

    entry_node = np.zeros(beam, np.int64)
    entry_blank = np.zeros(beam)
    entry_unit = np.full(beam, -np.inf)
    entry_sound = np.zeros(beam)
    entries = 1
    node_of = np.empty(most, np.int64)
    blank = np.empty(most)
    unit_end = np.empty(most)
    score = np.empty(most)
    likely = np.empty(size, np.int64)

    for step in range(steps):
        if count + most > len(nodes):
            count, nodes = _drop_unreachable(nodes, count, entry_node[:entries], most)
        best_unit = np.float64(log_probs[step].max())
        threshold = min(least_unit_log_prob, best_unit)
        likely_count = 0
        for unit in range(1, size):
            if log_probs[step, unit] >= threshold:
                likely[likely_count] = unit
                likely_count += 1
        limit = entry_sound[0] + nodes[entry_node[0]].language + best_unit - score_margin

        for i in range(entries):  # the same text as before
            node = entry_node[i]
            node_of[i] = node
            blank[i] = entry_sound[i] + log_probs[step, 0]
            unit_end[i] = entry_unit[i] + log_probs[step, nodes[node].unit]
        candidates = entries
        for i in range(entries):  # one unit more
            node = entry_node[i]
            for j in range(likely_count):
                unit = likely[j]
                before = entry_blank[i] if nodes[node].unit == unit else entry_sound[i]
                arrival = before + log_probs[step, unit]
                if arrival + nodes[node].language < limit or arrival == -np.inf:
                    continue
                child = np.int64(nodes[node].child)
                while child >= 0 and nodes[child].unit != unit:
                    child = np.int64(nodes[child].sibling)
                if child < 0:
                    child = count
                    text = unit_bytes[unit_begin[unit] : unit_begin[unit + 1]]
                    _append(nodes, child, node, unit, text, language, history)
                    count += 1
                place = nodes[child].entry
                if place >= 0:
                    unit_end[place] = log_add(unit_end[place], arrival)
                else:
                    node_of[candidates] = child
                    blank[candidates] = -np.inf
                    unit_end[candidates] = arrival
                    candidates += 1

        for i in range(entries):
            nodes[entry_node[i]].entry = -1
        best = -np.inf
        for i in range(candidates):
            score[i] = log_add(blank[i], unit_end[i]) + nodes[node_of[i]].language
            best = max(best, score[i])
        kept = 0
        within = np.empty(candidates, np.int64)
        for i in range(candidates):
            if score[i] >= best - score_margin:
                within[kept] = i
                kept += 1
        within = within[:kept]
        ranked = within[np.argsort(-score[within], kind="mergesort")]
        entries = min(beam, kept)
        for i in range(entries):
            candidate = ranked[i]
            entry_node[i] = node_of[candidate]
            entry_blank[i] = blank[candidate]
            entry_unit[i] = unit_end[candidate]
            entry_sound[i] = log_add(blank[candidate], unit_end[candidate])
            nodes[entry_node[i]].entry = i

    finals = np.empty(entries)
    for i in range(entries):
        finals[i] = entry_sound[i] + _final_worth(nodes, entry_node[i], language, history)
    ranked = np.argsort(-finals, kind="mergesort")
    return finals[ranked], *_spelled(nodes, entry_node[ranked])


@compiled
def log_add(a, b):
    """ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))


@compiled
def _set_root(nodes, language):
    root = nodes[0]
    root.parent = root.child = root.sibling = -1
    root.unit = 0  # its row holds the blank, but no path ends in a unit here
    root.entry = 0
    root.word = language.tables.begin_id
    root.word_node = 0
    root.first, root.last, root.letters = 0, len(language.mass) - 1, 0
    root.hot = 0
    root.settled = root.rewards = root.language = 0.0


@compiled
def _append(nodes, child, parent, unit, text, language, history):
    """Fills the node of a prefix with one unit more."""
    new, old = nodes[child], nodes[parent]
    new.parent, new.unit, new.child, new.sibling, new.entry = parent, unit, -1, old.child, -1
    old.child = child
    new.word = -1
    new.word_node = parent if old.word >= 0 else old.word_node
    new.first, new.last, new.letters = old.first, old.last, old.letters
    new.settled, new.rewards, new.hot = old.settled, old.rewards, old.hot
    for letter in text:
        new.hot = language.hot_next[new.hot, letter]
        new.rewards += language.hot_reward[new.hot]
        if language.has_words:
            if letter != BOUNDARY:
                new.first, new.last = narrowed(language.tables, new.first, new.last, new.letters, letter)
                new.letters += 1
            elif new.letters > 0:
                word, worth = _word_worth(nodes, child, language, history)
                new.word = word
                new.settled += worth
                new.first, new.last, new.letters = 0, len(language.mass) - 1, 0
    worth = new.settled + _unfinished_worth(nodes, child, language)
    new.language = worth + (new.rewards + language.hot_credit[new.hot])


@compiled
def _word_worth(nodes, node, language, history):
    """Id and worth of the word that was unfinished at the node and ends now."""
    here = nodes[node]
    tables = language.tables
    known = here.first < here.last and word_length(tables, here.first) == here.letters
    word = np.int64(here.first) if known else np.int64(tables.unknown_id)
    start = _history(nodes, node, history, tables.order - 1)
    worth = language.alpha * ngram_log_prob(tables, history[start:], word) + language.beta
    if not known:
        worth -= language.unknown_penalty * here.letters
    return word, worth


@compiled
def _history(nodes, node, history, length):
    """Fills `history` from its end with the last words' ids, at most `length`; returns where they start."""
    start = len(history)
    above = np.int64(node if nodes[node].word >= 0 else nodes[node].word_node)
    while start > len(history) - length:
        start -= 1
        history[start] = nodes[above].word
        if above == 0:
            break
        above = np.int64(nodes[above].word_node)
    return start


@compiled
def _unfinished_worth(nodes, node, language):
    here = nodes[node]
    if here.letters == 0 or not language.has_words:
        return 0.0
    mass = language.mass[here.last] - language.mass[here.first]
    if mass > 0:
        return language.alpha * math.log(mass)
    unknown = language.tables.unigram_log_probs[language.tables.unknown_id]
    return language.alpha * unknown - language.unknown_penalty * here.letters


@compiled
def _final_worth(nodes, node, language, history):
    """Worth of the text of a node if nothing follows."""
    here = nodes[node]
    hot = language.hot_next[here.hot, BOUNDARY]
    rewards = here.rewards + language.hot_reward[hot]
    if not language.has_words:
        return rewards
    total = here.settled
    tables = language.tables
    start = _history(nodes, node, history, tables.order - 1)
    if here.letters > 0:
        word, worth = _word_worth(nodes, node, language, history)
        total += worth
        if tables.order > 1:
            history[:-1] = history[1:]
            history[-1] = word
            start = max(0, start - 1)
    return total + language.alpha * ngram_log_prob(tables, history[start:], tables.end_id) + rewards


@compiled
def _drop_unreachable(nodes, count, entry_nodes, room):
    """Keeps the nodes that the beam goes through, in a larger tree if need be; updates `entry_nodes`."""
    new_place = np.full(count, -1, np.int32)
    new_place[0] = 0
    for entry_node in entry_nodes:
        node = entry_node
        while new_place[node] < 0:
            new_place[node] = 1
            node = np.int64(nodes[node].parent)
    kept = 0
    for node in range(count):
        if new_place[node] >= 0:
            new_place[node] = kept
            kept += 1
    larger = np.empty(max(len(nodes), 2 * (kept + room)), NODE) if 2 * kept + room > len(nodes) else nodes
    for node in range(count):  # parents come before their children, and no node moves up
        place = new_place[node]
        if place < 0:
            continue
        larger[place] = nodes[node]
        moved = larger[place]
        moved.child = -1
        if place > 0:
            moved.parent = new_place[moved.parent]
            moved.word_node = new_place[moved.word_node]
            moved.sibling = larger[moved.parent].child
            larger[moved.parent].child = place
    for i in range(len(entry_nodes)):
        entry_nodes[i] = new_place[entry_nodes[i]]
    return kept, larger


@compiled
def _spelled(nodes, results):
    """Units from the root to each node, one result after the other, and where each result begins."""
    begin = np.zeros(len(results) + 1, np.int64)
    for i in range(len(results)):
        node, length = results[i], 0
        while node > 0:
            node = np.int64(nodes[node].parent)
            length += 1
        begin[i + 1] = begin[i] + length
    units = np.empty(begin[-1], np.int64)
    for i in range(len(results)):
        node, place = results[i], begin[i + 1]
        while node > 0:
            place -= 1
            units[place] = nodes[node].unit
            node = np.int64(nodes[node].parent)
    return units, begin
