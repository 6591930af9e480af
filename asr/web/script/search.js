// Search in all kept texts, and links to a word of one.

const FOUND_AT_MOST = 50;

function showFound(sought) {
  const found = [];
  for (const document of sought ? [...kept.documents.values()].reverse() : []) {
    for (const { words } of document.transcript?.segments ?? []) {
      const at = textOf(words).toLowerCase().indexOf(sought.toLowerCase());
      if (at >= 0) found.push({ document, words, word: words[tokensOf(textOf(words).slice(0, at + 1)).length - 1] });
    }
  }
  find('.found').replaceChildren(
    ...found.slice(0, FOUND_AT_MOST).map(({ document, words, word }) => {
      const item = make('li', '');
      const button = make('button', '', textOf(words));
      button.type = 'button';
      button.addEventListener('click', () => openAt(document, word.start, true));
      item.append(button, ` ${document.name}, ${clock(word.start)}`);
      return item;
    }),
    ...(sought && !found.length ? [make('li', '', 'Not found')] : []),
  );
}

async function openAt(document, seconds, playing) {
  if (document !== shown) await reopen(document);
  const index = words.findLastIndex(({ word }) => word.start <= seconds + 0.001);
  select(Math.max(index, 0));
  draw(words[selected()]);
  if (playing) play(seconds);
}

// The kept document that the page's address names, as in "#1764288000000@12.34", and the second.
function addressed() {
  const [, id, seconds] = location.hash.match(/^#(\d+)@([\d.]+)$/) ?? [];
  return { document: kept.documents.get(Number(id)), seconds: Number(seconds) };
}

const linkTo = (word) => `${location.href.split('#')[0]}#${shown.id}@${word.start.toFixed(2)}`;
