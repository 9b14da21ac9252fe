"""Stored things in the shapes of the wire."""

from __future__ import annotations

from viva_server.api import wire
from viva_server.api.query import SessionsQuery
from viva_server.chat.sessions import SessionPage, Snapshot
from viva_server.store.sessions import Message, SessionItem


def message_item(message: Message) -> wire.MessageItem:
    """Shape a message as it stands in a snapshot."""
    return wire.MessageItem(
        id=message.id,
        seq=message.seq,
        tipo=wire.tipo_of(message.role),
        conteudo=message.content,
        modo=message.mode,
        anexos=message.attachments,
        meta=message.meta,
        status=message.status,
        finish_reason=message.finish_reason,
        created_at=message.created_at,
    )


def snapshot_body(snapshot: Snapshot) -> wire.Snapshot:
    """Shape a snapshot."""
    active = snapshot.active_reply
    return wire.Snapshot(
        session_id=snapshot.session_id,
        modo=snapshot.mode,
        messages=[message_item(message) for message in snapshot.messages],
        has_more=snapshot.has_more,
        active_reply=None
        if active is None
        else wire.ActiveReply(message_id=active.message_id, offset=active.offset),
    )


def session_page(page: SessionPage, query: SessionsQuery) -> wire.SessionPage:
    """Shape a page of sessions; the query is echoed as it was taken."""
    return wire.SessionPage(
        items=[_session_item(item) for item in page.items],
        total=page.total,
        page=query.page,
        page_size=query.page_size,
    )


def _session_item(item: SessionItem) -> wire.SessionItem:
    return wire.SessionItem(
        id=item.id,
        modo=item.mode,
        titulo=item.title,
        channel=item.channel,
        message_count=item.message_count,
        created_at=item.created_at,
        updated_at=item.updated_at,
        last_message_at=item.last_message_at,
    )
