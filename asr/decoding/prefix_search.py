"""CTC prefix beam search with a word n-gram model and hot words, compiled by numba.

Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional recurrent
DNNs": a prefix keeps the probability of all paths that spell it, those that end in a blank apart from those
that end in its last unit. An unfinished word scores alpha · ln(sum of the unigram probabilities of all words
that begin with its letters), a finished word w alpha · ln P(w | words before) + beta. An unknown word scores
as `<unk>`, minus `unknown_penalty` for each of its letters: never impossible, and lower the longer it is, so
that leaving out the space between two words does not pay.

Prefixes are nodes of a tree that is kept from step to step, so that the language model is asked once for
each. When the tree is full, the nodes that no prefix in the beam begins with are dropped, so that memory
grows only with the text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asr.decoding.compilation import compiled
from asr.decoding.ngram import narrowed, ngram_log_prob, word_length

BOUNDARY = 32  # the byte of a space
INITIAL_NODES = 1 << 14
EPSILON = 1e-9  # beyond what rounding does to a score

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
        ("settled", np.float64),  # score of the finished words
        ("unfinished", np.float64),  # score of the unfinished word
        ("rewards", np.float64),  # of finished hot words
        ("text_score", np.float64),  # of all the text so far
    ],
    align=True,
)

PREFIX = np.dtype(
    [
        ("node", np.int64),
        ("blank", np.float64),  # ln P of its paths that end in a blank
        ("unit", np.float64),  # ln P of its paths that end in its last unit
        ("acoustic", np.float64),  # ln P of both
        ("score", np.float64),  # acoustic and text score
    ]
)


class Language(NamedTuple):
    """Language model, its weights, and hot words (`HotwordAutomaton`)."""

    tables: tuple  # NgramTables
    cumulative_probability: np.ndarray  # NgramModel's
    has_words: bool  # False without a language model
    alpha: float
    beta: float
    unknown_penalty: float
    hot_next: np.ndarray
    hot_credit: np.ndarray
    hot_reward: np.ndarray


@compiled
def search(log_probs, unit_text, language, beam, score_margin, least_unit_log_prob):
    """Scores [n] (best first), units of all results one after the other, and where each begins [n + 1].

    `log_probs` is float32 [steps, units]; `unit_text` has the units' UTF-8 bytes, one after the other, and
    where each begins [units + 1]. The rest is as in `BeamDecoder`.
    """
    steps, size = log_probs.shape
    most = beam * size  # candidates of a step: each prefix as it is or with one unit more
    nodes = np.empty(max(INITIAL_NODES, 2 * most), NODE)
    _set_root(nodes, language)
    count = 1
    history = np.empty(max(1, language.tables.order - 1), np.int64)
    kept, candidates = np.zeros(beam, PREFIX), np.empty(most, PREFIX)
    kept[0].unit = -np.inf
    entries = 1
    likely = np.empty(size, np.int64)
    active_child = np.empty((beam, size), np.int64)

    for step in range(steps):
        row = log_probs[step]
        if count + most > len(nodes):
            count, nodes = _drop_unreachable(nodes, count, kept[:entries], most)
        best_unit = np.float64(row[0])
        for unit in range(1, size):
            best_unit = max(best_unit, row[unit])
        threshold = min(least_unit_log_prob, best_unit)
        likely_count = 0
        for unit in range(1, size):
            if row[unit] >= threshold:
                likely[likely_count] = unit
                likely_count += 1

        floor = np.inf
        for i in range(entries):  # the same text as before
            before, same = kept[i], candidates[i]
            same.node = before.node
            same.blank = before.acoustic + row[0]
            same.unit = before.unit + row[nodes[before.node].unit]
            floor = min(floor, max(same.blank, same.unit) + nodes[before.node].text_score)
        # If these alone fill the beam, nothing below the last of them can get into it.
        floor = floor - EPSILON if entries == beam else -np.inf
        limit = kept[0].score + best_unit - score_margin
        _find_active_children(nodes, kept[:entries], active_child)

        size_now = entries
        for i in range(entries):  # one unit more
            prefix = kept[i]
            node = prefix.node
            text_score = nodes[node].text_score
            for j in range(likely_count):
                unit = likely[j]
                arrival = (prefix.blank if nodes[node].unit == unit else prefix.acoustic) + row[unit]
                if arrival + text_score < limit or arrival == -np.inf:
                    continue
                place = active_child[i, unit]
                if place >= 0:
                    candidates[place].unit = log_add(candidates[place].unit, arrival)
                    continue
                child = np.int64(nodes[node].child)
                while child >= 0 and nodes[child].unit != unit:
                    child = np.int64(nodes[child].sibling)
                if child < 0:
                    child = count
                    count += 1
                    text = unit_text[0][unit_text[1][unit] : unit_text[1][unit + 1]]
                    _append(nodes, child, node, unit, text, language, history)
                if arrival + nodes[child].text_score >= floor:
                    longer = candidates[size_now]
                    longer.node, longer.blank, longer.unit = child, -np.inf, arrival
                    size_now += 1
        for i in range(entries):
            nodes[kept[i].node].entry = -1
        entries = _select(nodes, candidates, size_now, kept, score_margin)

    finals = np.empty(entries)
    for i in range(entries):
        finals[i] = kept[i].acoustic + _final_score(nodes, kept[i].node, language, history)
    ranked = np.argsort(-finals, kind="mergesort")
    return finals[ranked], *_spelled(nodes, kept[ranked])


@compiled
def _find_active_children(nodes, prefixes, active_child):
    """active_child[i, unit]: the place in the beam of prefix i with one unit more, -1 if it is not there."""
    for i in range(len(prefixes)):
        for unit in range(active_child.shape[1]):
            active_child[i, unit] = -1
    for i in range(len(prefixes)):
        node = prefixes[i].node
        if node > 0:
            parent = nodes[nodes[node].parent].entry
            if parent >= 0:
                active_child[parent, nodes[node].unit] = i


@compiled
def _select(nodes, candidates, size, kept, score_margin):
    """Moves the best candidates to `kept`, best first; returns how many."""
    best = -np.inf
    for i in range(size):
        candidate = candidates[i]
        candidate.acoustic = log_add(candidate.blank, candidate.unit)
        candidate.score = candidate.acoustic + nodes[candidate.node].text_score
        best = max(best, candidate.score)
    # Loops: what NumPy has for them takes numba a second longer to compile.
    places, negated, within = np.empty(size, np.int64), np.empty(size), 0
    for i in range(size):
        if candidates[i].score >= best - score_margin:
            places[within], negated[within] = i, -candidates[i].score
            within += 1
    ranked = np.argsort(negated[:within], kind="mergesort")
    entries = min(len(kept), within)
    for i in range(entries):
        kept[i] = candidates[places[ranked[i]]]
        nodes[kept[i].node].entry = i
    return entries


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
    root.first, root.last, root.letters = 0, len(language.cumulative_probability) - 1, 0
    root.hot = 0
    root.settled = root.unfinished = root.rewards = root.text_score = 0.0


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
                word, score = _word_score(nodes, child, language, history)
                new.word = word
                new.settled += score
                new.first, new.last, new.letters = 0, len(language.cumulative_probability) - 1, 0
    new.unfinished = _unfinished_score(nodes, child, language)
    new.text_score = new.settled + new.unfinished + (new.rewards + language.hot_credit[new.hot])


@compiled
def _word_score(nodes, node, language, history):
    """Id and score of the word that was unfinished at the node and ends now."""
    here = nodes[node]
    tables = language.tables
    known = here.first < here.last and word_length(tables, here.first) == here.letters
    word = np.int64(here.first) if known else np.int64(tables.unknown_id)
    start = _history(nodes, node, history, tables.order - 1)
    score = language.alpha * ngram_log_prob(tables, history[start:], word) + language.beta
    if not known:
        score -= language.unknown_penalty * here.letters
    return word, score


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
def _unfinished_score(nodes, node, language):
    here = nodes[node]
    if here.letters == 0 or not language.has_words:
        return 0.0
    probability = language.cumulative_probability[here.last] - language.cumulative_probability[here.first]
    if probability > 0:
        return language.alpha * math.log(probability)
    unknown = language.tables.unigram_log_probs[language.tables.unknown_id]
    return language.alpha * unknown - language.unknown_penalty * here.letters


@compiled
def _final_score(nodes, node, language, history):
    """Score of the text of a node if nothing follows."""
    here = nodes[node]
    hot = language.hot_next[here.hot, BOUNDARY]
    rewards = here.rewards + language.hot_reward[hot]
    if not language.has_words:
        return rewards
    total = here.settled
    tables = language.tables
    start = _history(nodes, node, history, tables.order - 1)
    if here.letters > 0:
        word, score = _word_score(nodes, node, language, history)
        total += score
        if tables.order > 1:
            for i in range(len(history) - 1):
                history[i] = history[i + 1]
            history[-1] = word
            start = max(0, start - 1)
    return total + language.alpha * ngram_log_prob(tables, history[start:], tables.end_id) + rewards


@compiled
def _drop_unreachable(nodes, count, prefixes, room):
    """Keeps the nodes that the beam goes through, in a larger tree if need be; updates `prefixes`."""
    reached = np.zeros(count, np.int32)
    reached[0] = 1
    for i in range(len(prefixes)):
        node = prefixes[i].node
        while not reached[node]:
            reached[node] = 1
            node = np.int64(nodes[node].parent)
    new_place, kept = np.empty(count, np.int32), 0
    for node in range(count):
        new_place[node] = kept
        kept += reached[node]
    larger = np.empty(max(len(nodes), 2 * (kept + room)), NODE) if 2 * kept + room > len(nodes) else nodes
    for node in range(count):  # parents come before their children, and no node moves up
        if not reached[node]:
            continue
        place = new_place[node]
        larger[place] = nodes[node]
        moved = larger[place]
        moved.child = -1
        if place > 0:
            moved.parent = new_place[moved.parent]
            moved.word_node = new_place[moved.word_node]
            moved.sibling = larger[moved.parent].child
            larger[moved.parent].child = place
    for i in range(len(prefixes)):
        prefixes[i].node = new_place[prefixes[i].node]
    return kept, larger


@compiled
def _spelled(nodes, prefixes):
    """Units from the root to each prefix, one prefix after the other, and where each begins."""
    begin = np.zeros(len(prefixes) + 1, np.int64)
    for i in range(len(prefixes)):
        begin[i + 1] = begin[i]
        node = prefixes[i].node
        while node > 0:
            begin[i + 1] += 1
            node = np.int64(nodes[node].parent)
    units = np.empty(begin[-1], np.int32)
    for i in range(len(prefixes)):
        node, place = prefixes[i].node, begin[i + 1]
        while node > 0:
            place -= 1
            units[place] = nodes[node].unit
            node = np.int64(nodes[node].parent)
    return units, begin
