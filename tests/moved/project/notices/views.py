from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt

from .models import Notice


@csrf_exempt
def post(request):
    notice = Notice.objects.create(text=request.POST["text"])
    async_to_sync(get_channel_layer().group_send)(
        "notices", {"type": "notice.posted", "id": notice.pk}
    )
    return JsonResponse({"id": notice.pk})
