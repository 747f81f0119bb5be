"""Notices to people: a channel is a table ``[[notify]]`` of the configuration and builds itself."""

from agent.notify.apprise import Apprise
from agent.notify.channel import Channel, Notice, NotSent
from agent.notify.webhook import Webhook

NotifyConfig = Webhook | Apprise

__all__ = ["Apprise", "Channel", "NotSent", "Notice", "NotifyConfig", "Webhook"]
