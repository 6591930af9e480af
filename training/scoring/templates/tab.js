// Shows the report in a frame that cannot reach this page: the texts in it may be anybody's.
const frame = element.querySelector('iframe');
const link = element.querySelector('a');

watch('report', () => {
  const address = (type) => URL.createObjectURL(new Blob([props.report], { type }));
  for (const old of [frame.src, link.href]) URL.revokeObjectURL(old);
  frame.src = address('text/html');
  link.href = address('application/octet-stream'); // never opened as a page of this server
  element.querySelector('.report').hidden = !props.report;
});

addEventListener('message', ({ source, data }) => {
  if (source === frame.contentWindow && data?.height > 0) frame.style.height = `${Math.ceil(data.height)}px`;
});
