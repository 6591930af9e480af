// Several files: they are transcribed one after another, each becomes a kept document, and all can be saved as one zip file.

const several = {
  files: [], // {file, state ("waiting", "running", "done" or "failed"), note, fraction, document}
  running: null,
  queued: null, // the sound that the server reads next

  add(files) {
    this.files.push(...files.map((file) => ({ file, state: 'waiting', note: 'waiting' })));
    this.show();
    if (!this.running) this.next();
  },

  async next() {
    const one = (this.running = this.files.find(({ state }) => state === 'waiting') ?? null);
    if (!one) return this.show();
    Object.assign(one, { state: 'running', note: 'uploading' });
    this.show();
    try {
      const { path, url } = await upload(asSound(one.file));
      this.queued = { path, url, orig_name: one.file.name, size: one.file.size, meta: { _type: 'gradio.FileData' } };
      trigger('several');
    } catch (error) {
      this.hear({ failed: `It cannot be uploaded: ${error.message || error}` });
    }
  },

  // What the server has to say of the running one.
  async hear({ failed, transcript, done, total, left, words: count }) {
    const one = this.running;
    if (!one) return;
    if (failed) {
      Object.assign(one, { state: 'failed', note: failed });
    } else if (transcript) {
      const document = { id: Date.now(), name: one.file.name, transcript, undo: [], redo: [] };
      const note = `${transcript.duration.toFixed(1)} s of audio, ${counted(wordsOf(transcript).length)}`;
      Object.assign(one, { state: 'done', note, document });
      await keepSound(document, one.file);
    } else {
      const times = total ? `${clock(done)} of ${clock(total)}` : clock(done);
      const rest = left === null ? '' : ` · about ${clock(left + 0.5)} left`;
      Object.assign(one, { note: `${times} · ${counted(count)}${rest}`, fraction: total && done / total });
    }
    if (one.state !== 'running') this.next();
    this.show();
  },

  stop() {
    for (const one of this.files) if (one.state === 'waiting') Object.assign(one, { state: 'failed', note: 'stopped' });
    if (this.running) trigger('stopseveral');
    this.show();
  },

  close() {
    this.files = [];
    this.show();
  },

  show() {
    const list = find('.several ol');
    const items = this.files.map((one) => {
      const item = make('li', one.state);
      item.append(make('span', 'name', one.file.name), make('span', 'note', one.note));
      if (one.state === 'running') {
        const bar = item.appendChild(document.createElement('progress'));
        if (one.fraction) bar.value = one.fraction;
      }
      if (one.document) {
        const button = item.appendChild(make('button', '', 'Open'));
        button.type = 'button';
        button.setAttribute('aria-label', `Open ${one.file.name}`);
        button.addEventListener('click', () => reopen(one.document));
      }
      return item;
    });
    list.replaceChildren(...items);
    const count = (state) => this.files.filter((one) => one.state === state).length;
    find('.several').hidden = !this.files.length;
    find('.several .total').textContent = [
      `${count('done')} of ${this.files.length} done`,
      count('failed') && `${count('failed')} failed`,
    ].filter(Boolean).join(', ');
    find('.several .save').hidden = !count('done');
    find('[data-do=stopSeveral]').hidden = !this.running;
    find('[data-do=closeSeveral]').hidden = Boolean(this.running);
  },

  async save(format) {
    const documents = this.files.flatMap(({ document }) => (document ? [document] : []));
    const content = await server.zip_texts({ documents: documents.map(({ name, transcript }) => ({ name, transcript })), format });
    download('transcripts.zip', content, 'application/zip');
  },
};

watch('several', () => several.hear(JSON.parse(JSON.stringify(props.several))));
