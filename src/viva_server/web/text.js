// What the page says, in Portuguese and English.

const PORTUGUESE = {
  lang: "pt-BR",
  newChat: "Nova conversa",
  sessions: "Conversas",
  openSessions: "Abrir conversas",
  closeSessions: "Fechar conversas",
  moreSessions: "Mostrar mais",
  messages: "Mensagens",
  messageCount: (n) => (n === 1 ? "1 mensagem" : `${n} mensagens`),
  deleteChat: (title) => `Apagar “${title}”`,
  deleteTitle: "Apagar esta conversa?",
  deleteText: "Todas as mensagens dela serão apagadas. Isso não pode ser desfeito.",
  deleteFailed: "Não foi possível apagar a conversa.",
  cancel: "Cancelar",
  confirmDelete: "Apagar",
  emptyTitle: "Como posso ajudar?",
  emptyText: "Pergunte o que quiser. Cada resposta fica guardada, mesmo se a conexão cair.",
  suggestions: ["Quem é você?", "O que você pode fazer?", "Que horas são?"],
  placeholder: "Escreva uma mensagem",
  send: "Enviar",
  stop: "Parar a resposta",
  you: "Você",
  assistant: "VIVA",
  thinking: "VIVA está respondendo",
  replied: (text) => `VIVA respondeu: ${text}`,
  retry: "Tentar de novo",
  retryNow: "Tentar agora",
  copy: "Copiar",
  copied: "Copiado",
  toBottom: "Ir para o fim",
  older: "Carregando mensagens anteriores",
  waitingFor: (s) => `O servidor está ocupado. Nova tentativa em ${s} s`,
  reconnecting: (s) => `Conexão perdida. Nova tentativa em ${s} s`,
  connecting: "Conectando de novo…",
  connectionLost: "Conexão perdida. A página tenta de novo.",
  connectionBack: "Conexão restabelecida.",
  loadFailed: "Não foi possível carregar as conversas.",
  accessTitle: "Abra pelo seu link",
  accessText:
    "Esta página precisa de um link com acesso (…/#token=…). O servidor mostra um quando começa; o acesso pode também ter expirado.",
  tooLong: (n) => `A mensagem é longa demais: no máximo ${n} caracteres.`,
  refused: "O servidor não aceitou a mensagem.",
  busy: "Esta conversa já tem uma resposta em andamento.",
  gone: "Esta conversa não existe mais.",
  damaged: "A resposta não chegou inteira e foi carregada de novo.",
  notes: {
    stopped: "Você interrompeu a resposta.",
    disconnected: "A resposta parou: ninguém estava lendo.",
    superseded: "A resposta parou: veio uma mensagem nova.",
    shutdown: "A resposta parou: o servidor foi desligado.",
    crashed: "A resposta parou: o servidor caiu.",
    upstream_error: "A resposta parou: o modelo falhou.",
    limit: "A resposta parou: chegou ao limite de tamanho.",
    length: "A resposta chegou ao limite do modelo.",
  },
  failed: "Não foi possível responder.",
};

const ENGLISH = {
  lang: "en",
  newChat: "New chat",
  sessions: "Chats",
  openSessions: "Open chats",
  closeSessions: "Close chats",
  moreSessions: "Show more",
  messages: "Messages",
  messageCount: (n) => (n === 1 ? "1 message" : `${n} messages`),
  deleteChat: (title) => `Delete “${title}”`,
  deleteTitle: "Delete this chat?",
  deleteText: "All of its messages will be deleted. This cannot be undone.",
  deleteFailed: "The chat could not be deleted.",
  cancel: "Cancel",
  confirmDelete: "Delete",
  emptyTitle: "How can I help?",
  emptyText: "Ask anything. Every reply is kept, even if the connection drops.",
  suggestions: ["Who are you?", "What can you do?", "What time is it?"],
  placeholder: "Write a message",
  send: "Send",
  stop: "Stop the reply",
  you: "You",
  assistant: "VIVA",
  thinking: "VIVA is replying",
  replied: (text) => `VIVA replied: ${text}`,
  retry: "Try again",
  retryNow: "Try now",
  copy: "Copy",
  copied: "Copied",
  toBottom: "Go to the end",
  older: "Loading earlier messages",
  waitingFor: (s) => `The server is busy. Next try in ${s} s`,
  reconnecting: (s) => `Connection lost. Next try in ${s} s`,
  connecting: "Connecting again…",
  connectionLost: "Connection lost. The page keeps trying.",
  connectionBack: "Connection restored.",
  loadFailed: "The chats could not be loaded.",
  accessTitle: "Open it by your link",
  accessText:
    "This page needs a link that gives access (…/#token=…). The server shows one when it starts; the access may also have expired.",
  tooLong: (n) => `The message is too long: ${n} characters at most.`,
  refused: "The server did not take the message.",
  busy: "This chat already has a reply under way.",
  gone: "This chat does not exist any more.",
  damaged: "The reply did not arrive whole and was loaded again.",
  notes: {
    stopped: "You stopped this reply.",
    disconnected: "The reply stopped: nobody was reading it.",
    superseded: "The reply stopped: a new message came.",
    shutdown: "The reply stopped: the server was shut down.",
    crashed: "The reply stopped: the server crashed.",
    upstream_error: "The reply stopped: the model failed.",
    limit: "The reply stopped: it reached the limit of its size.",
    length: "The reply reached the model's limit.",
  },
  failed: "The reply could not be given.",
};

/** The first language of the browser that is one of the two; else Portuguese. */
const wanted = navigator.languages.find((name) => /^(pt|en)\b/i.test(name)) ?? "pt";

export const text = /^en/i.test(wanted) ? ENGLISH : PORTUGUESE;

/** The browser's own kind of that language, for dates. */
const locale = /^(pt|en)/i.test(wanted) ? wanted : text.lang;
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "short" });

/** Today's time, else the day. */
export function shortTime(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? clock : day).format(date);
}

export const longTime = (date) => full.format(date);

/** Fills in the texts that the page's elements name. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = text[element.dataset.text];
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text[element.dataset.label]);
    if (element.matches("button")) element.title = text[element.dataset.label];
  }
}
